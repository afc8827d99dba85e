"use strict";
// Reads a chart at the pointer: a rule, and the nearest point of each series.
const reading = document.getElementById("reading");

function nearest(values, wanted) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (Math.abs(values[i] - wanted) < Math.abs(values[best] - wanted)) best = i;
  return best;
}

function row(label, value, colour) {
  const line = document.createElement("div"), name = document.createElement("span"), number = document.createElement("b");
  if (colour) {
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.setProperty("--own", `var(${colour})`);
    name.append(swatch);
  }
  name.append(label);
  number.textContent = value;
  line.append(name, number);
  return line;
}

function readable(plot) {
  const drawing = plot.querySelector(".drawing"), data = JSON.parse(plot.querySelector("script").textContent);
  const [left, top, width, height] = data.box, [low, high] = data.limits;
  const rule = document.createElement("div");
  rule.className = "rule";
  rule.hidden = true;
  drawing.append(rule);

  drawing.addEventListener("pointermove", (event) => {
    const frame = drawing.getBoundingClientRect();
    const share = ((event.clientX - frame.left) / frame.width - left) / width;
    const outside = share < 0 || share > 1;
    rule.hidden = reading.hidden = outside;
    if (outside) return;
    const x = low + share * (high - low);
    Object.assign(rule.style, { left: `${(left + share * width) * 100}%`, top: `${top * 100}%`, height: `${height * 100}%` });
    const lines = data.series.filter((series) => series.x.length).map((series) => {
      const i = nearest(series.x, x);
      return row(series.label, data.x ? series.y[i] : `${Math.round(100 * series.y[i])} % at most ${series.x[i]}`, series.colour);
    });
    const longest = data.series.reduce((found, series) => (series.x.length > found.length ? series.x : found), []);
    if (data.x && longest.length) lines.unshift(row(data.x, longest[nearest(longest, x)]));
    reading.replaceChildren(...lines);
    const flip = event.clientX + reading.offsetWidth + 30 > innerWidth;
    reading.style.left = `${flip ? Math.max(4, event.clientX - reading.offsetWidth - 14) : event.clientX + 14}px`;
    reading.style.top = `${Math.min(event.clientY + 14, innerHeight - reading.offsetHeight - 6)}px`;
  });
  drawing.addEventListener("pointerleave", () => { rule.hidden = reading.hidden = true; });
}

// A table whose rows become blocks is still a table to a screen reader, and its cells say which column they are of.
const ROLES = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };
function stackable(table) {
  const columns = [...table.tHead.rows[0].cells].map((head) => head.textContent);
  for (const part of [table, ...table.querySelectorAll("thead, tbody, tr, td")]) part.setAttribute("role", ROLES[part.tagName]);
  for (const head of table.querySelectorAll("th")) head.setAttribute("role", head.scope === "col" ? "columnheader" : "rowheader");
  for (const row of table.querySelectorAll("tbody tr")) {
    // From the right, as a head that spans rows is not in all of them.
    const cells = [...row.querySelectorAll("td:not([colspan])")];
    cells.forEach((cell, index) => { cell.dataset.column = columns.at(index - cells.length); });
  }
  table.classList.add("stacked");
}
