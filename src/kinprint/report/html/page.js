"use strict";
// Adds to the page what paper cannot do: sorting, values under the pointer or the keys, switches for series.
// It shows only text that the document holds already, and makes elements without ever reading HTML from text.
(() => {
  const make = (name, kind, text) => {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    if (text) made.textContent = text;
    if (name === "button") made.type = "button";
    return made;
  };

  // -- tables: a heading sorts upwards, then downwards, then as the record has it ------------------------------------

  const key = (row, at) => {
    const cell = row.cells[at];
    const shown = cell.dataset.value ?? cell.textContent.trim();
    if (shown === "" || shown === "-") return null;
    const value = Number(shown.replace(/,/g, ""));
    return Number.isNaN(value) ? shown : value;
  };

  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

  const sorted = (rows, at, turn) => {
    const keyed = rows.map((row) => [key(row, at), row]);
    // What has no value stays below, whichever way the others go.
    keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : turn * compare(a, b)));
    return keyed.map(([, row]) => row);
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const recorded = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, at) => {
      if (!head.textContent.trim()) return;
      const button = make("button", "sort");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = { ascending: "descending", descending: "none" }[head.ariaSort] ?? "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (now !== "none") head.ariaSort = now;
        body.append(...(now === "none" ? recorded : sorted(recorded, at, now === "ascending" ? 1 : -1)));
      });
    });
  };

  // -- pictures: the mark under the pointer, or stepped to with keys, is read out below ------------------------------

  const told = (mark) => [...mark.children].find((child) => child.localName === "title")?.textContent;

  const readable = (figure) => {
    const box = figure.querySelector(".wide");
    const picture = box?.querySelector("svg");
    if (!picture?.querySelector("title")) return;
    const hint = "Point at a mark, or step through the marks with the arrow keys, to read a value.";
    const out = make("p", "readout", hint);
    out.setAttribute("role", "status");
    figure.append(out);
    let now = null;
    const show = (mark) => {
      now?.classList.remove("now");
      now = mark;
      now?.classList.add("now");
      out.textContent = now ? told(now) : hint;
    };
    picture.addEventListener("pointerover", (event) => {
      const mark = event.target instanceof Element ? event.target : null;
      if (mark && told(mark)) show(mark);
    });
    box.addEventListener("keydown", (event) => {
      const marks = [...picture.querySelectorAll("title")].map((title) => title.parentNode);
      const seen = marks.filter((mark) => !mark.closest(".off"));
      const at = seen.indexOf(now);
      const to = { ArrowRight: at + 1, ArrowLeft: at < 0 ? 0 : at - 1, Home: 0, End: seen.length - 1 }[event.key];
      if (event.key === "Escape") show(null);
      if (to === undefined || !seen.length) return;
      event.preventDefault();
      show(seen[Math.max(0, Math.min(seen.length - 1, to))]);
      now.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    box.addEventListener("blur", () => show(null));
  };

  // A switch for each name of a series, which several panels may share; its sample is the legend's, whose place it takes.
  const sample = (keys, button) => {
    if (!keys.length) return;
    const drawn = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    drawn.setAttribute("viewBox", "0 3 18 18");
    drawn.setAttribute("aria-hidden", "true");
    drawn.append(keys[0].firstElementChild.cloneNode());
    button.prepend(drawn);
    keys.forEach((key) => key.classList.add("replaced"));
  };

  const switchable = (figure) => {
    const named = new Map();
    figure.querySelectorAll("svg .series").forEach((series) => {
      const label = series.dataset.label;
      named.set(label, [...(named.get(label) ?? []), series]);
    });
    if (named.size < 2) return;
    const keys = [...figure.querySelectorAll("svg .key")];
    const row = make("div", "switches");
    row.setAttribute("role", "group");
    row.ariaLabel = "Show";
    row.append(make("span", "", "Show:"));
    named.forEach((all, label) => {
      const button = make("button", "switch", label);
      sample(keys.filter((key) => key.textContent === label), button);
      button.ariaPressed = "true";
      button.addEventListener("click", () => {
        const shown = button.ariaPressed !== "true";
        button.ariaPressed = String(shown);
        all.forEach((series) => series.classList.toggle("off", !shown));
      });
      row.append(button);
    });
    figure.querySelector(".wide").before(row);
  };

  // -- what folds: all at once, and on paper whatever a browser makes of it ------------------------------------------

  const folds = [...document.querySelectorAll("main details")];
  const unfolding = () => {
    const nav = document.querySelector("nav");
    if (!folds.length || !nav) return;
    const button = make("button", "unfold", "Unfold everything");
    button.addEventListener("click", () => {
      const open = folds.some((fold) => !fold.open);
      folds.forEach((fold) => (fold.open = open));
      button.textContent = open ? "Fold everything" : "Unfold everything";
    });
    nav.append(button);
  };

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = folds.filter((fold) => !fold.open);
    closed.forEach((fold) => (fold.open = true));
  });
  addEventListener("afterprint", () => closed.forEach((fold) => (fold.open = false)));

  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("figure").forEach((figure) => {
    readable(figure);
    switchable(figure);
  });
  unfolding();
})();
