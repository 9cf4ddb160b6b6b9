"use strict";
// The script of every page of the report: tables that sort, claims that are filtered, frames as high as their pages.
// Without it the pages hold the same text: headers are plain words and the filter is hidden.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const LAST = Symbol("missing values stand last, whatever the direction");

  /** What a cell is sorted by: its data-sort (a number where it is one, nothing where it is empty), or its text. */
  function keyOf(row, column) {
    const cell = row.cells[column];
    const given = cell?.dataset.sort ?? cell?.textContent.trim() ?? "";
    if (given === "") return LAST;
    return Number.isNaN(Number(given)) ? given : Number(given);
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  /** The rows of every body in the order of a column, each body for itself; null restores the order of the page. */
  function sort(table, column, direction) {
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
      rows.sort((a, b) => a.dataset.place - b.dataset.place);
      if (direction !== null) {
        const keys = new Map(rows.map((row) => [row, keyOf(row, column)]));
        rows.sort((a, b) => {
          const [x, y] = [keys.get(a), keys.get(b)];
          if (x === LAST || y === LAST) return (x === LAST) - (y === LAST);
          return (direction === "descending" ? -1 : 1) * compare(x, y);
        });
      }
      body.append(...rows);
    }
    all("thead th", table).forEach((header, other) => {
      header.setAttribute("aria-sort", other === column && direction !== null ? direction : "none");
    });
  }

  function makeSortable(table) {
    table.classList.add("sorts");
    const next = { none: "ascending", ascending: "descending", descending: null };
    for (const body of table.tBodies) [...body.rows].forEach((row, place) => (row.dataset.place = place));
    all("thead th", table).forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort: ascending, descending, as it was";
      button.append(...[...header.childNodes].filter((node) => !node.classList?.contains("sub")));
      header.prepend(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(table, column, next[header.getAttribute("aria-sort")]));
    });
  }

  /** The filter of a page: claims whose text holds every word, with that verdict. */
  function makeFilter(form) {
    const [words, verdict, count] = ["words", "verdict", "count"].map((name) => form.elements[name]);
    const claims = all(form.dataset.claims);
    const texts = new Map(claims.map((claim) => {
      const group = claim.closest("tbody")?.querySelector(".group");
      const parts = [...(group ? [group] : []), ...all("[data-text]", claim)];
      return [claim, parts.map((part) => part.textContent).join(" ").toLowerCase()];
    }));
    const verdicts = new Map(claims.map((claim) => [claim, all(".verdict", claim).map((one) => one.dataset.verdict)]));

    function apply() {
      const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const claim of claims) {
        const text = texts.get(claim);
        const fits = asked.every((word) => text.includes(word))
          && (verdict.value === "" || verdicts.get(claim).includes(verdict.value));
        claim.hidden = !fits;
        shown += fits;
      }
      for (const group of all("tr.group")) {
        group.hidden = ![...group.parentElement.rows].some((row) => row !== group && !row.hidden);
      }
      const filtered = asked.length > 0 || verdict.value !== "";
      form.elements.clear.hidden = !filtered;
      count.textContent = filtered ? `${shown} of ${claims.length} ${form.dataset.of}` : `${claims.length} ${form.dataset.of}`;
    }

    function clear() {
      words.value = verdict.value = "";
      apply();
    }

    /** A link to a claim that is filtered away shows it. */
    function showTarget() {
      const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!target?.hidden) return;
      clear();
      target.scrollIntoView();
    }

    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("keydown", (event) => event.key === "Escape" && clear());
    form.elements.clear.addEventListener("click", () => {
      clear();
      words.focus();
    });
    window.addEventListener("hashchange", showTarget);
    window.addEventListener("pageshow", apply); // the browser may have put back what was typed before
    apply();
  }

  /** A frame says how high its page is; it runs in a sandbox, so nothing else of what it says is used. */
  function fitFrames() {
    window.addEventListener("message", (event) => {
      const frame = all("iframe").find((one) => one.contentWindow === event.source);
      const height = Number(event.data?.height);
      if (frame && height > 0) frame.style.height = `${Math.min(Math.ceil(height), 6000) + 2}px`;
    });
    // What a frame said before this script ran is lost, and one out of sight says nothing by itself: ask.
    const ask = (frame) => frame.contentWindow?.postMessage("height", "*");
    for (const frame of all("iframe")) {
      frame.addEventListener("load", () => ask(frame));
      ask(frame);
    }
  }

  fitFrames();
  all("table.sortable").forEach(makeSortable);
  all("form.filter").forEach(makeFilter);
})();
