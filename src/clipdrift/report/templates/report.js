"use strict";
(async () => {
  // Long parts of the page are deflated: zlib in base64.
  const text = async (element) => {
    const packed = element.dataset.packed;
    if (packed === undefined) return element.textContent;
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const opened = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(opened).text();
  };
  const page = JSON.parse(await text(document.getElementById("page-data")));
  const library = document.getElementById("plotly");
  if (library.dataset.packed !== undefined) {
    const script = document.createElement("script");
    script.textContent = await text(library);
    document.head.append(script);
  }
  const darkQuery = matchMedia("(prefers-color-scheme: dark)");
  const hidden = new Set();
  const chosen = {};
  let printing = false;

  // Colours: figures name them by token, the theme says what they are.
  const theme = () => page.themes[darkQuery.matches && !printing ? "dark" : "light"];
  const rgba = (hex, opacity) => {
    const part = (i) => parseInt(hex.slice(i, i + 2), 16);
    return `rgba(${part(1)},${part(3)},${part(5)},${opacity})`;
  };
  const resolve = (value, colours) => {
    if (Array.isArray(value)) return value.map((item) => resolve(item, colours));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, resolve(v, colours)]));
    }
    if (typeof value !== "string" || value[0] !== "@") return value;
    const match = /^@([a-z]+[0-9]?)(?:\/([0-9.]+))?$/.exec(value);
    if (!match || !(match[1] in colours)) return value;
    const colour = colours[match[1]];
    return match[2] ? rgba(colour, match[2]) : colour;
  };

  // Figures.
  const plots = [...document.querySelectorAll(".plot")];
  const version = (plot) => {
    const figure = page.figures[plot.id];
    const name = chosen[plot.dataset.group];
    return figure.versions ? figure.versions[name] || Object.values(figure.versions)[0] : figure;
  };
  const draw = (plot) => {
    const figure = resolve(version(plot), theme());
    for (const trace of figure.data) {
      if (trace.meta && hidden.has(trace.meta.method)) trace.visible = false;
    }
    const layout = { ...figure.layout, height: plot.clientHeight, width: plot.clientWidth };
    const config = { displayModeBar: false, doubleClick: false, showTips: false };
    Plotly.react(plot, figure.data, layout, config);
    if (!plot.dataset.bound) {
      plot.dataset.bound = "yes";
      plot.on("plotly_click", (event) => clicked(event.points[0]));
      // After every drawing from now on, a zoom's too; the first is over.
      plot.on("plotly_afterplot", () => spread(plot));
      spread(plot);
    }
    if (plot.dataset.group) labelScale(plot.dataset.group);
  };

  // Labels beside points: each takes the first free place around its point, or is not shown, as
  // report/labels.py does it on paper. What is written on lines gives way to the points.
  const ANGLES = [45, 135, 225, 315, 0, 180, 90, 270].map((angle) => (angle * Math.PI) / 180);
  const DISTANCES = [11, 24, 40];
  const apart = (a) => (b) =>
    a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
  const box = (element) => element.getBoundingClientRect();
  const spread = (plot) => {
    const labels = [...plot.querySelectorAll(".textpoint")];
    if (!labels.length) return;
    plot.querySelectorAll(".leader").forEach((line) => line.remove());
    const taken = [...plot.querySelectorAll(".scatterlayer .point")].map(box);
    for (const note of plot.querySelectorAll(".annotation")) {
      const free = taken.every(apart(box(note)));
      note.style.visibility = free ? "" : "hidden";
      if (free) taken.push(box(note));
    }
    const area = box(plot.querySelector(".nsewdrag"));
    for (const label of labels) {
      label.style.translate = "";
      const own = box(label);
      const [x, y] = ["x", "y"].map((name) => Number(label.firstChild.getAttribute(name)));
      const found = DISTANCES.flatMap((distance) => ANGLES.map((angle) => {
        const [across, down] = [distance * Math.cos(angle), -distance * Math.sin(angle)];
        const side = (way, size) => (size / 2) * (Math.sign(Math.round(way)) - 1);
        const left = area.left + x + across + side(across, own.width);
        const top = area.top + y + down + side(down, own.height);
        return { left, top, right: left + own.width, bottom: top + own.height, distance, across, down };
      })).find((at) => at.left >= area.left && at.right <= area.right && at.top >= area.top
        && at.bottom <= area.bottom && taken.every(apart(at)));
      label.style.visibility = found ? "" : "hidden";
      if (!found) continue;
      taken.push(found);
      label.style.translate = `${found.left - own.left}px ${found.top - own.top}px`;
      if (found.distance === DISTANCES[0]) continue;
      const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
      line.setAttribute("class", "leader");
      line.setAttribute("d", `M${x},${y}l${found.across},${found.down}`);
      label.parentNode.append(line);
    }
  };
  const labelScale = (group) => {
    const box = document.querySelector(`[data-scale="${group}"]`);
    const found = page.scales[chosen[group] || Object.keys(page.scales)[0]];
    if (!box || !found) return;
    box.querySelector(".low").textContent = found[0];
    box.querySelector(".high").textContent = found[1];
  };
  const drawAll = () => plots.forEach(draw);
  const drawInTurn = () => {
    const waiting = plots.slice();
    const step = () => {
      const start = performance.now();
      while (waiting.length && performance.now() - start < 30) draw(waiting.shift());
      if (waiting.length) setTimeout(step);
      else openTables();
    };
    step();
  };
  const openTables = async () => {
    for (const rows of document.querySelectorAll("tbody[data-packed]")) {
      rows.innerHTML = await text(rows);
      firstStop(rows);
    }
    document.documentElement.dataset.drawn = "yes";
  };
  const clicked = (point) => {
    const data = point && point.customdata;
    if (!data || !data[0]) return;
    const names = data[2] || [(point.data.meta || {}).metric];
    const label = String(data[1]).split("<br>")[0].replace(/<\/?b>/g, "");
    const plain = new DOMParser().parseFromString(label, "text/html").body.textContent;
    openDrawer(data[0], names, plain);
  };
  darkQuery.addEventListener("change", drawAll);
  let resizing;
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width || printing) return;
    width = innerWidth;
    clearTimeout(resizing);
    resizing = setTimeout(drawAll, 150);
  });
  const print = (on) => () => {
    printing = on;
    document.documentElement.classList.toggle("printing", on);
    drawAll();
  };
  addEventListener("beforeprint", print(true));
  addEventListener("afterprint", print(false));

  for (const select of document.querySelectorAll("[data-versions]")) {
    const group = select.dataset.versions;
    chosen[group] = select.value;
    select.addEventListener("change", () => {
      chosen[group] = select.value;
      plots.filter((plot) => plot.dataset.group === group).forEach(draw);
    });
  }
  const toggles = [...document.querySelectorAll("[data-method]")];
  for (const button of toggles) {
    button.addEventListener("click", () => {
      const name = button.dataset.method;
      if (!hidden.delete(name)) hidden.add(name);
      for (const other of toggles) {
        other.setAttribute("aria-pressed", String(!hidden.has(other.dataset.method)));
      }
      drawAll();
    });
  }

  // Runs behind a number.
  const drawer = document.getElementById("drawer");
  let opener = null;
  const decode = (text) => text.split(" ").flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
  const fill = (row, values, tag) => {
    for (const value of values) {
      const cell = document.createElement(tag);
      cell.textContent = value;
      row.append(cell);
    }
    return row;
  };
  const openDrawer = (runs, names, label) => {
    const found = decode(runs);
    const listed = names.filter((name) => page.values[name]);
    const shown = found.slice(0, 200);
    const count = found.length === 1 ? "1 run" : `${found.length} runs`;
    document.getElementById("drawer-title").textContent = label ? `${count} · ${label}` : count;
    const [head, body] = drawer.querySelectorAll("thead, tbody");
    const titles = ["Run", "Target", "Method", "LR", "Seed", "Status"];
    titles.push(...listed.map((name) => page.labels[name]));
    head.replaceChildren(fill(document.createElement("tr"), titles, "th"));
    body.replaceChildren(...shown.map((i) => {
      const cells = [...page.runs[i], ...listed.map((name) => page.values[name][i] ?? "–")];
      return fill(document.createElement("tr"), cells, "td");
    }));
    if (found.length > shown.length) {
      body.append(fill(document.createElement("tr"), [`and ${found.length - shown.length} more`], "td"));
    }
    opener = document.activeElement;
    drawer.hidden = false;
  };
  const closeDrawer = () => {
    drawer.hidden = true;
    document.querySelectorAll(".selected").forEach((cell) => cell.classList.remove("selected"));
    if (opener && document.contains(opener)) opener.focus({ preventScroll: true });
  };
  const show = (cell) => {
    document.querySelectorAll(".selected").forEach((other) => other.classList.remove("selected"));
    cell.classList.add("selected");
    const metric = cell.dataset.metric || "";
    const text = cell.closest("td, th, .number") ? (cell.firstChild || cell).textContent : "";
    openDrawer(cell.dataset.runs, [metric], [page.labels[metric], text].filter(Boolean).join(" "));
  };
  document.getElementById("drawer-close").addEventListener("click", closeDrawer);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !drawer.hidden) closeDrawer();
  });
  document.addEventListener("click", (event) => {
    const cell = event.target.closest("[data-runs]");
    if (cell) show(cell);
  });

  // Keyboard: one tab stop per table and per text; arrows move between numbers, Enter opens.
  const groups = document.querySelectorAll("tbody, .facts, .sentences, .limits, .notices ul");
  const firstStop = (group) => {
    const first = group.querySelector("[data-runs]");
    if (first) first.tabIndex = 0;
  };
  groups.forEach(firstStop);
  const move = (cell, key) => {
    const row = cell.closest("tr");
    if (!row) {
      const all = [...cell.closest("ul, .facts").querySelectorAll("[data-runs]")];
      const step = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
      return all[all.indexOf(cell) + step];
    }
    if (key === "ArrowLeft" || key === "ArrowRight") {
      const all = [...row.querySelectorAll("[data-runs]")];
      return all[all.indexOf(cell) + (key === "ArrowRight" ? 1 : -1)];
    }
    let next = row;
    do next = key === "ArrowDown" ? next.nextElementSibling : next.previousElementSibling;
    while (next && (next.hidden || !next.cells[cell.cellIndex].dataset.runs));
    return next && next.cells[cell.cellIndex];
  };
  document.addEventListener("keydown", (event) => {
    const cell = event.target.closest && event.target.closest("[data-runs]");
    if (!cell) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      show(cell);
    } else if (event.key.startsWith("Arrow")) {
      const next = move(cell, event.key);
      if (!next) return;
      event.preventDefault();
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
  });

  // Sorting and filtering.
  const key = (row, column) => {
    const cell = row.cells[column];
    if (!("sort" in cell.dataset)) return null;
    const text = cell.dataset.sort;
    const number = Number(text);
    return text !== "" && !Number.isNaN(number) ? number : text.toLowerCase();
  };
  const compare = (a, b) => {
    if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
    return typeof a === "number" ? -1 : 1;
  };
  const sort = (head) => {
    const table = head.closest("table");
    const column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
    // What is undefined stays last in both directions.
    const defined = rows.filter(([value]) => value !== null);
    const rest = rows.filter(([value]) => value === null);
    defined.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]));
    table.tBodies[0].append(...[...defined, ...rest].map(([, row]) => row));
  };
  for (const button of document.querySelectorAll("main thead button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }
  for (const input of document.querySelectorAll("[data-filter]")) {
    const table = document.querySelector(`[data-table="${CSS.escape(input.dataset.filter)}"]`);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.every((part) => text.includes(part));
      }
    });
  }

  drawInTurn();
})();
