"use strict";
// The script of reprise.pages.head_map_page: the map of values, and which head's attention pattern is open below it.
// The pattern itself is drawn by attention.js, which says with the event "head" that it shows another one.
(() => {
  const id = (name) => document.getElementById(name);
  const rows = [...document.querySelectorAll("#grid tbody tr")].map((row) => [...row.querySelectorAll("button")]);
  const cells = rows.flat();
  const patterns = [...document.querySelectorAll(".heads button")];
  const section = id("pattern"); // absent where no pattern is stored

  function say(cell) {
    const tip = id("tip");
    tip.textContent = cell.dataset.says;
    tip.hidden = false;
    const [box, at] = [id("grid").getBoundingClientRect(), cell.getBoundingClientRect()];
    const left = at.left - box.left + at.width / 2 - tip.offsetWidth / 2;
    const most = id("grid").clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(left, most)) + id("grid").scrollLeft}px`;
    tip.style.top = `${at.bottom - box.top + 4}px`;
  }

  function quiet() {
    id("tip").hidden = true;
  }

  function mark(pattern) {
    for (const cell of cells) {
      if (pattern !== null && cell.dataset.pattern === String(pattern)) cell.setAttribute("aria-current", "true");
      else cell.removeAttribute("aria-current");
    }
  }

  const marked = () => cells.find((cell) => cell.getAttribute("aria-current") === "true");

  function open(cell) {
    if (cell.dataset.pattern === undefined) return;
    section.hidden = false;
    patterns[cell.dataset.pattern].click();
    quiet();
    id("opened").focus();
  }

  function close() {
    const cell = marked();
    section.hidden = true;
    mark(null);
    cell?.focus();
  }

  function enter(cell) {
    cells.forEach((other) => (other.tabIndex = other === cell ? 0 : -1));
    say(cell);
  }

  rows.forEach((row, layer) => row.forEach((cell, head) => {
    cell.addEventListener("pointerenter", () => say(cell));
    cell.addEventListener("pointerleave", quiet);
    cell.addEventListener("focus", () => enter(cell));
    cell.addEventListener("blur", quiet);
    cell.addEventListener("click", () => open(cell));
    cell.addEventListener("keydown", (event) => {
      const moves = {
        ArrowUp: [layer - 1, head], ArrowDown: [layer + 1, head], ArrowLeft: [layer, head - 1],
        ArrowRight: [layer, head + 1], Home: [layer, 0], End: [layer, row.length - 1],
      };
      const to = moves[event.key];
      if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      rows[to[0]]?.[to[1]]?.focus();
    });
  }));

  if (section) {
    id("close").addEventListener("click", close);
    document.addEventListener("head", (event) => {
      id("opened-head").textContent = patterns[event.detail].textContent;
      mark(event.detail);
    });
    if (!section.hidden) mark(patterns.findIndex((button) => button.getAttribute("aria-pressed") === "true"));
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented) return; // attention.js has released a locked token
    if (!id("tip").hidden) quiet();
    else if (section && !section.hidden) close();
  });
})();
