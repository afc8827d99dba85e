{% include "parts.js" %}

// The parts of the page, replaced as the server's stream of events says. Whatever they hold is the server's HTML, in which
// all that came from data is escaped; the policy of the page lets no script in them run.
const slots = Object.fromEntries([...document.querySelectorAll("[data-slot]")].map((slot) => [slot.dataset.slot, slot]));
const byId = (id) => document.getElementById(id);
const kept = new Map();
const BEATS_MS = 15000;

function inUse(slot) {
  const chosen = getSelection();
  const selected = chosen && !chosen.isCollapsed && slot.contains(chosen.anchorNode);
  return selected || slot.querySelector(".drawing:hover") !== null;
}

function prepare(slot) {
  slot.querySelectorAll(".plot").forEach(readable);
  slot.querySelectorAll("table").forEach(stackable);
}

function show(name, html) {
  const slot = slots[name];
  // What is being pointed at, or selected, stays until it is let go.
  if (inUse(slot)) { kept.set(name, html); return; }
  kept.delete(name);
  const open = new Map([...slot.querySelectorAll("details[id]")].map((part) => [part.id, part.open]));
  const focused = slot.contains(document.activeElement) ? document.activeElement.closest("details[id]")?.id : undefined;
  slot.innerHTML = html;
  for (const [id, was] of open) { const part = byId(id); if (part) part.open = was; }
  if (focused) byId(focused)?.querySelector("summary").focus();
  prepare(slot);
  follow();
}

function follow() {
  const head = slots.head.querySelector(".head"), pools = slots.pools.querySelector(".pools");
  if (head) {
    document.title = head.dataset.title;
    byId("orders").hidden = head.dataset.orders !== "on";
  }
  if (pools) offer(JSON.parse(pools.dataset.pools));
}

const wanted = new Map();
function offer(pools) {
  const select = byId("pool"), before = select.value;
  pools.forEach(([role, workers]) => wanted.set(role, workers));
  const roles = pools.map(([role]) => role);
  if (roles.join("\n") === [...select.options].map((option) => option.value).join("\n")) return;
  select.replaceChildren(...roles.map((role) => new Option(role, role)));
  if (roles.includes(before)) select.value = before;
  byId("workers").value = wanted.get(select.value) ?? 1;
}
byId("pool").addEventListener("change", () => { byId("workers").value = wanted.get(byId("pool").value) ?? 1; });

async function order(path, body) {
  const said = byId("said"), buttons = document.querySelectorAll("#orders button");
  buttons.forEach((button) => { button.disabled = true; });
  said.className = "small";
  said.textContent = "asking the driver …";
  try {
    const answer = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), redirect: "error",
    });
    const words = await answer.json();
    said.textContent = words.said ?? words.error;
    said.classList.toggle("refused", !answer.ok);
  } catch (error) {
    said.textContent = `The server of this page does not answer (${error.message}).`;
    said.classList.add("refused");
  }
  buttons.forEach((button) => { button.disabled = false; });
}
byId("scale").addEventListener("submit", (event) => {
  event.preventDefault();
  order("scale", { pool: byId("pool").value, workers: byId("workers").valueAsNumber });
});
byId("stop").addEventListener("click", () => byId("sure").showModal());
byId("keep").addEventListener("click", () => byId("sure").close());
byId("really").addEventListener("click", () => { byId("sure").close(); order("stop", {}); });

const link = byId("link");
let heard = Date.now();
function alive() {
  heard = Date.now();
  link.className = "live quiet small";
  link.textContent = "live";
}
function silent() {
  link.className = "lost small";
  link.textContent = `no word from this page's server since ${new Date(heard).toLocaleTimeString()}; trying again`;
}
// The browser connects again by itself, and says what it has by the last id; only a refusal is final.
const stream = new EventSource(`events?after=${encodeURIComponent(document.body.dataset.mark)}`);
stream.addEventListener("open", alive);
stream.addEventListener("beat", alive);
stream.addEventListener("parts", (event) => {
  alive();
  for (const [name, html] of Object.entries(JSON.parse(event.data))) show(name, html);
});
stream.addEventListener("error", () => {
  silent();
  if (stream.readyState === EventSource.CLOSED) link.textContent = "refused by this page's server; open its link again";
});
setInterval(() => { if (Date.now() - heard > BEATS_MS) silent(); }, 1000);
setInterval(() => { for (const [name, html] of [...kept]) show(name, html); }, 500);

Object.values(slots).forEach(prepare);
follow();
