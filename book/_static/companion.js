/* Draws the figures of the book and sorts its tables. Everything a page needs is on the page or beside it:
   plotly is fetched from this site, once, when the first figure comes near the screen. */
(() => {
  "use strict";
  const here = document.currentScript.src;
  const narrow = window.matchMedia("(max-width: 600px)");
  const touch = window.matchMedia("(pointer: coarse)");
  let library = null;

  function plotly() {
    library ??= new Promise((resolve, reject) => {
      if (window.Plotly) return resolve(window.Plotly);
      const script = document.createElement("script");
      script.src = new URL("../vendor/plotly.min.js", here).href;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("the plotting library did not load; static pictures stay"));
      document.head.append(script);
    });
    return library;
  }

  function layoutFor(spec) {
    const layout = structuredClone(spec.layout);
    const data = structuredClone(spec.data);
    layout.dragmode = touch.matches ? false : "zoom";
    layout.font = { ...layout.font, family: getComputedStyle(document.body).fontFamily };
    const named = layout.annotations?.some((a) => a.yref === "paper" && a.y === 1 && a.yanchor === "bottom");
    if (named && layout.legend?.y >= 1) // lifts the legend off the name of a reference line
      layout.legend = { ...layout.legend, y: layout.legend.y + 16 / Math.max(layout.height - 120, 80) };
    if (!narrow.matches) return { data, layout };
    const { colorbar, traces, ...phone } = spec.phone;
    for (const [k, values] of Object.entries(traces ?? {})) Object.assign(data[k], values);
    for (const [key, value] of Object.entries(phone)) {
      layout[key] = value !== null && typeof value === "object" ? { ...layout[key], ...value } : value;
    }
    layout.font = { ...layout.font, size: 11 };
    for (const trace of data) {
      const bar = trace.colorbar ?? trace.marker?.colorbar;
      if (!bar) continue;
      // beside the plot a colour bar takes a third of a phone's width; above it, none
      Object.assign(bar, { orientation: "h", x: 0.5, xanchor: "center", y: 1.02, yanchor: "bottom", len: 1, thickness: 10 });
      bar.title = { ...bar.title, side: "top" };
      Object.assign(bar, colorbar);
    }
    return { data, layout };
  }

  async function draw(figure) {
    const place = figure.querySelector(".companion-plot");
    const source = figure.querySelector('script[type="application/json"]');
    if (!place || !source) return;
    try {
      const library = await plotly();
      const { data, layout } = layoutFor(JSON.parse(source.textContent));
      figure.classList.add("is-live"); // shows the place first, so that the plot can measure it
      library.purge(place); // a redraw over a colour bar that lay elsewhere keeps its margins
      await library.newPlot(place, data, layout, { displayModeBar: false, responsive: true, showTips: false });
    } catch (error) {
      figure.classList.remove("is-live");
      console.warn(`figure ${figure.id}: ${error.message}`);
    }
  }

  function watch() {
    const figures = [...document.querySelectorAll(".companion-figure:has(> .companion-plot)")];
    const started = new Map(); // a figure and the promise of its drawing, so that nobody reads it half drawn
    const start = (figure) => started.get(figure) ?? started.set(figure, draw(figure)).get(figure);
    const near = new IntersectionObserver(
      (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => (near.unobserve(e.target), start(e.target))),
      { rootMargin: "600px" },
    );
    figures.forEach((figure) => near.observe(figure));
    let drawnNarrow = narrow.matches, timer;
    narrow.addEventListener("change", () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (drawnNarrow === narrow.matches) return;
        drawnNarrow = narrow.matches;
        [...started.keys()].forEach(draw);
      }, 150);
    });
    window.companion = { drawAll: () => Promise.all(figures.map(start)) };
  }

  /* ---- tables ---- */

  const amount = (cell) => {
    const text = cell.textContent.trim();
    return text === "–" || text === "" ? null : Number(text);
  };

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        const numeric = head.classList.contains("n");
        const key = (row) => (numeric ? amount(row.cells[column]) : row.cells[column].textContent.trim());
        const order = (a, b) => {
          const x = key(a), y = key(b);
          if (x === null || y === null) return (x === null) - (y === null); // not measured: always last
          const sign = numeric ? x - y : x.localeCompare(y, undefined, { numeric: true });
          return down ? -sign : sign;
        };
        table.tBodies[0].append(...rows.sort(order));
      });
    });
  }

  function widen(table) { // a column of sentences gets the width to be read; the table scrolls sideways
    for (const row of table.tBodies[0]?.rows ?? [])
      for (const cell of row.cells)
        if (cell.tagName === "TD" && cell.textContent.length > 40) cell.classList.add("is-long");
  }

  function ready() {
    watch();
    document.querySelectorAll("table.companion-table").forEach(widen);
    document.querySelectorAll("table.companion-sortable").forEach(sortable);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else ready();
})();
