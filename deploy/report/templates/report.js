{% include "parts.js" %}

document.querySelectorAll(".plot").forEach(readable);
document.querySelectorAll("table").forEach(stackable);
