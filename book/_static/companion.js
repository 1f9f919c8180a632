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

  /* ---- pairs and names of the maps ---- */

  // The form is the truth: sliders, benchmark and flag narrow the pairs, a brush in the plot narrows them further;
  // the plot only shows the outcome. It is drawn late and redrawn on rotation, so each step asks for it.
  function explore(root) {
    const figure = root.querySelector(".companion-figure");
    const place = figure.querySelector(".companion-plot");
    const spec = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    const info = JSON.parse(root.querySelector(".companion-pairs-data").textContent);
    const form = root.querySelector("form"), body = root.querySelector(".companion-pairs-table tbody");
    const status = root.querySelector(".companion-pairs-count");
    const axes = Object.keys(info.where);
    const value = Object.fromEntries(axes.map((a) => {
      const [k, key] = info.where[a];
      return [a, key === "color" ? spec.data[k].marker.color : spec.data[k][key]];
    }));
    const total = info.pairs.length;
    const entity = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;" };
    const literal = (text) => text.replace(/[&<>$]/g, (c) => entity[c]);
    const text = info.pairs.map((pair) => pair.map((n) => literal(info.names[n])).join(" – "));
    info.panels.forEach(([x, y], k) => { // what the panels share was sent once
      Object.assign(spec.data[k], { x: value[axes[x]], y: value[axes[y]], text });
      spec.data[k].marker.color = spec.data[0].marker.color;
    });
    figure.querySelector('script[type="application/json"]').textContent = JSON.stringify(spec);
    let brushed = null, chosen = null, seen = null;
    const live = () => window.Plotly && place.data ? window.Plotly : null;
    function attach() {
      if (!live() || !place.on || place._ev === seen) return;
      seen = place._ev;
      place.on("plotly_selected", (event) => {
        const drawn = event && (event.range || event.lassoPoints); // clearing a brush reports an empty one
        brushed = drawn ? new Set(event.points.map((p) => p.pointNumber)) : null;
        chosen = null;
        update();
      });
      place.on("plotly_deselect", () => { brushed = null; update(); });
      place.on("plotly_click", (event) => { chosen = event.points[0].pointNumber; update(); });
    }
    function matching() {
      const limit = {};
      for (const input of form.querySelectorAll("input[type=range]")) {
        (limit[input.dataset.axis] ??= {})[input.dataset.end] = Number(input.value);
        input.nextElementSibling.textContent = Number(input.value).toFixed(2);
      }
      const name = form.querySelector('[data-role="benchmark"]').value;
      const flag = form.querySelector('[data-role="flag"]').value;
      const keep = [];
      for (let i = 0; i < total; i++) {
        if (brushed && !brushed.has(i)) continue;
        if (name !== "" && !info.pairs[i].includes(Number(name))) continue;
        if (flag && info.flags[info.flag[i]] !== flag) continue;
        if (axes.every((a) => value[a][i] >= limit[a].low - 1e-9 && value[a][i] <= limit[a].high + 1e-9)) keep.push(i);
      }
      return keep;
    }
    function update() {
      attach();
      const keep = matching();
      keep.sort((i, j) => value[axes[0]][j] - value[axes[0]][i]);
      status.textContent = `${keep.length} of ${total} pairs` +
        (keep.length > info.rows ? `; the table shows the ${info.rows} of highest ${axes[0]} overlap` : "") +
        (brushed ? "; within the selection in the plot" : "");
      body.replaceChildren(...keep.slice(0, info.rows).map((i) => {
        const row = document.createElement("tr"), head = document.createElement("th");
        const button = document.createElement("button");
        head.scope = "row";
        button.type = "button";
        button.textContent = info.pairs[i].map((n) => info.names[n]).join(" – ");
        button.setAttribute("aria-pressed", String(i === chosen));
        button.addEventListener("click", () => {
          chosen = chosen === i ? null : i;
          for (const other of body.rows) other.classList.remove("is-chosen");
          row.classList.toggle("is-chosen", chosen === i);
          button.setAttribute("aria-pressed", String(chosen === i));
          paint(keep);
        });
        head.append(button);
        row.append(head);
        row.classList.toggle("is-chosen", i === chosen);
        for (const a of axes) {
          const cell = document.createElement("td");
          cell.className = "n";
          cell.textContent = value[a][i].toFixed(2);
          row.append(cell);
        }
        const cell = document.createElement("td");
        cell.textContent = info.flags[info.flag[i]] ?? "";
        row.append(cell);
        return row;
      }));
      paint(keep);
    }
    function paint(keep) {
      const library = live();
      if (!library) return;
      const points = chosen !== null ? [chosen] : keep.length === total ? null : keep;
      library.restyle(place, { selectedpoints: spec.data.map(() => points) });
    }
    form.addEventListener("input", () => { chosen = null; update(); });
    form.addEventListener("reset", () => setTimeout(() => {
      brushed = chosen = null;
      const library = live();
      if (library) library.relayout(place, { selections: [] });
      update();
    }));
    form.addEventListener("submit", (event) => event.preventDefault());
    const brush = form.querySelector('[data-role="brush"]');
    brush.addEventListener("click", () => {
      const on = brush.getAttribute("aria-pressed") !== "true";
      brush.setAttribute("aria-pressed", String(on));
      attach();
      const library = live();
      if (library) library.relayout(place, { dragmode: on ? "select" : touch.matches ? false : "zoom" });
    });
    figure.addEventListener("pointerenter", attach);
    update();
    for (const part of root.querySelectorAll("[hidden]")) part.hidden = false;
  }

  function find(root) {
    const figure = root.querySelector(".companion-figure");
    const place = figure.querySelector(".companion-plot"), choice = root.querySelector("select");
    const status = root.querySelector("[role=status]");
    const plain = (html) => new DOMParser().parseFromString(html, "text/html").body.textContent;
    choice.addEventListener("change", () => {
      const library = window.Plotly, data = place.data;
      if (!library || !data) return;
      const own = data.findIndex((t) => t.name === "chosen"), rest = data.map((_, i) => i).filter((i) => i !== own);
      const at = Number(choice.value), names = data.find((t) => t.name === "names");
      status.textContent = "";
      if (choice.value === "") {
        library.restyle(place, { opacity: 1 }, rest);
        library.restyle(place, { x: [[]], y: [[]] }, [own]);
        return;
      }
      const centre = [names.x[at], names.y[at]], name = choice.selectedOptions[0].textContent;
      const x = [], y = [], text = [], told = [];
      for (const trace of data.filter((t) => t.customdata && t.legendgroup)) {
        const i = trace.text.findIndex((t) => plain(t.split("<br>")[0]) === name);
        if (i < 0) continue;
        const title = trace.name.split(" (")[0];
        x.push(centre[0], trace.x[i], null);
        y.push(centre[1], trace.y[i], null);
        text.push("", title, "");
        told.push(`${title} ${trace.customdata[i].toFixed(2)}`);
      }
      library.restyle(place, { opacity: 0.15 }, rest);
      library.restyle(place, { x: [x], y: [y], text: [text] }, [own]);
      status.textContent = `${name}: ${told.join(", ")} radii from its consensus place.`;
    });
    root.querySelector("[hidden]").hidden = false;
  }

  function filter(box) { // leaves the rows of the table that hold the words typed
    const rows = [...document.getElementById(box.dataset.filters).tBodies[0].rows];
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(words);
    });
  }

  function ready() {
    document.querySelectorAll(".companion-explorer").forEach(explore); // completes the data of the plot: before it is drawn
    document.querySelectorAll(".companion-finder").forEach(find);
    document.querySelectorAll("input[data-filters]").forEach(filter);
    watch();
    document.querySelectorAll("table.companion-table").forEach(widen);
    document.querySelectorAll("table.companion-sortable").forEach(sortable);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", ready);
  else ready();
})();
