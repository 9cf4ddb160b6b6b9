"use strict";
// The script of reprise.pages.attention_page. Heads and tokens are the buttons that the page already holds;
// weights[(head * n + query) * n + key] is 255 times an attention weight.
(() => {
  const id = (name) => document.getElementById(name);
  const heads = [...document.querySelectorAll(".heads button")];
  const tokens = [...document.querySelectorAll(".tokens button")];
  const map = id("map");
  const n = tokens.length;
  const weights = Uint8Array.from(atob(id("weights").textContent.trim()), (letter) => letter.charCodeAt(0));

  let head = heads.findIndex((button) => button.getAttribute("aria-pressed") === "true");
  let token = n - 1; // the one whose sources or readers are shaded
  let locked = false;
  let cell = null; // [query, key] under the pointer of the heat map

  const weight = (query, key) => weights[(head * n + query) * n + key] / 255;
  const attendsTo = () => document.querySelector("[name=direction]:checked").value === "attends to";
  const place = (position) => `\u201c${tokens[position].textContent}\u201d at ${position}`;
  const clamp = (position) => Math.min(n - 1, Math.max(0, position));

  /** 256 colours from --zero to --one, as they are in the present colour scheme. */
  function colours() {
    const style = getComputedStyle(document.documentElement);
    const ends = ["--zero", "--one"].map((name) => {
      const hex = style.getPropertyValue(name).trim().slice(1);
      return [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16));
    });
    return Array.from({ length: 256 }, (_, step) => [
      ...ends[0].map((zero, channel) => Math.round(zero + ((ends[1][channel] - zero) * step) / 255)),
      255,
    ]);
  }

  function paint(canvas, number, scale) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(n, n);
    for (let i = 0; i < n * n; i++) image.data.set(scale[weights[number * n * n + i]], 4 * i);
    context.putImageData(image, 0, 0);
  }

  function paintAll() {
    const scale = colours();
    heads.forEach((button, number) => paint(button.querySelector("canvas"), number, scale));
    paint(map, head, scale);
  }

  /** Put a frame over the given rows and columns of the heat map. */
  function frame(element, top, left, height, width) {
    const percent = (share) => `${(100 * share) / n}%`;
    Object.assign(element.style, {
      top: percent(top), left: percent(left), height: percent(height), width: percent(width),
    });
  }

  function showCell() {
    id("cell").hidden = cell === null;
    if (cell === null) return;
    frame(id("cell"), cell[0], cell[1], 1, 1);
    id("query").textContent = place(cell[0]);
    id("key").textContent = place(cell[1]);
    id("weight").textContent = weight(...cell).toFixed(3);
  }

  function showToken() {
    const forward = attendsTo();
    const shares = tokens.map((_, other) => (forward ? weight(token, other) : weight(other, token)));
    tokens.forEach((button, position) => {
      button.style.setProperty("--weight", shares[position].toFixed(3));
      button.classList.toggle("shown", position === token);
      button.setAttribute("aria-pressed", String(locked && position === token));
      button.tabIndex = position === token ? 0 : -1;
    });
    if (forward) frame(id("band"), token, 0, 1, n);
    else frame(id("band"), 0, token, n, 1);
    const order = shares.map((_, position) => position).filter((position) => shares[position] > 0);
    order.sort((a, b) => shares[b] - shares[a] || a - b);
    const most = order.slice(0, 3).map((position) => `${place(position)} (${shares[position].toFixed(3)})`);
    const verb = forward ? "attends to" : "is attended by";
    id("said").textContent = `${place(token)} ${verb} ${most.join(", ") || "nothing by more than 0.002"}${locked ? ". Locked." : "."}`;
  }

  function chooseHead(number) {
    head = number;
    heads.forEach((button, other) => {
      button.setAttribute("aria-pressed", String(other === number));
      button.tabIndex = other === number ? 0 : -1;
    });
    id("label").textContent = heads[number].textContent;
    paint(map, head, colours());
    showCell();
    showToken();
    document.dispatchEvent(new CustomEvent("head", { detail: head }));
  }

  function look(position) {
    if (locked) return;
    token = position;
    showToken();
  }

  function lock(position) {
    locked = !(locked && token === position);
    token = position;
    showToken();
  }

  const ofCell = () => cell[attendsTo() ? 0 : 1];

  function point(query, key) {
    cell = [clamp(query), clamp(key)];
    showCell();
    look(ofCell());
  }

  /** Arrow keys, Home and End move the focus along a row of buttons of which only one is in the tab order. */
  function rove(buttons) {
    const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -Infinity, End: Infinity };
    buttons.forEach((button, position) => {
      button.addEventListener("keydown", (event) => {
        const step = steps[event.key];
        if (step === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        buttons[Math.min(buttons.length - 1, Math.max(0, position + step))].focus();
      });
    });
  }

  rove(heads);
  rove(tokens);
  heads.forEach((button, number) => {
    button.addEventListener("click", () => chooseHead(number));
    button.addEventListener("focus", () => chooseHead(number));
  });
  tokens.forEach((button, position) => {
    button.addEventListener("click", () => lock(position));
    button.addEventListener("focus", () => look(position));
    button.addEventListener("pointerenter", () => look(position));
  });

  function pointAt(event) {
    const box = map.getBoundingClientRect();
    const query = Math.floor(((event.clientY - box.top) / box.height) * n);
    point(query, Math.floor(((event.clientX - box.left) / box.width) * n));
  }
  map.addEventListener("pointermove", pointAt);
  map.addEventListener("pointerdown", pointAt);
  map.addEventListener("click", () => lock(ofCell()));
  map.addEventListener("focus", () => cell === null && point(token, token));
  map.addEventListener("keydown", (event) => {
    const [query, key] = cell ?? [token, token];
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in moves) point(query + moves[event.key][0], key + moves[event.key][1]);
    else if (event.key === "Enter" || event.key === " ") lock(ofCell());
    else return;
    event.preventDefault();
  });

  document.querySelectorAll("[name=direction]").forEach((input) => input.addEventListener("change", showToken));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !locked) return;
    event.preventDefault();
    locked = false;
    showToken();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintAll);

  paintAll();
  showCell();
  showToken();
})();
