"use strict";
(() => {
  const id = (name) => document.getElementById(name);
  const rows = [...document.querySelectorAll("#example-table tr[data-state]")];
  const texts = rows.map((row) => row.textContent.toLowerCase());

  function filter() {
    const words = id("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = id("state").value;
    let shown = 0;
    rows.forEach((row, i) => {
      const fits = (!state || row.dataset.state === state) && words.every((word) => texts[i].includes(word));
      row.hidden = !fits;
      shown += fits;
    });
    for (const body of id("example-table").tBodies) body.hidden = !body.querySelector("tr[data-state]:not([hidden])");
    id("found").textContent = shown === rows.length ? `${shown} examples` : `${shown} of ${rows.length} examples`;
  }
  id("find").addEventListener("input", filter);
  id("state").addEventListener("change", filter);
  filter();

  const holder = id("map-data");
  if (holder) start(JSON.parse(holder.textContent)).catch((error) => {
    const note = document.createElement("p");
    note.className = "absent";
    note.textContent = `The map could not be drawn here (${error.message}); a current browser can.`;
    id("map-legend").replaceChildren(note);
  });

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  async function start(data) {
    const buffer = await unpack(data.points);
    const kinds = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array };
    const columns = {};
    let offset = 0;
    for (const [name, kind, length] of data.arrays) {
      const end = offset + length * kinds[kind].BYTES_PER_ELEMENT;
      columns[name] = new kinds[kind](buffer.slice(offset, end));
      offset = end;
    }
    for (let i = 1; i < data.n; i++) columns.row[i] += columns.row[i - 1];
    const excerpts = new TextDecoder().decode(await unpack(data.texts)).split("\n");
    draw(data, columns, excerpts);
  }

  function draw(data, columns, excerpts) {
    const { x, y, mark, row, order } = columns;
    const n = data.n, canvas = id("map-canvas"), pen = canvas.getContext("2d");
    const place = new Map(Array.from(order, (point, i) => [point, i]));
    const dark = matchMedia("(prefers-color-scheme: dark)"), print = matchMedia("print");
    let zoom = 1, left = 0, top = 0, at = -1, waiting = false;

    const choice = id("map-colour");
    ["chosen or not", ...data.columns.map((column) => column.name)].forEach((name, i) => choice.add(new Option(name, String(i - 1))));

    const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const night = () => dark.matches && !print.matches;
    const HUES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"];
    const RAMP = { day: [[214, 221, 226], [86, 180, 233], [0, 92, 150], [0, 38, 66]], night: [[62, 72, 80], [0, 114, 178], [86, 180, 233], [236, 248, 255]] };
    const hue = (i) => (i < HUES.length ? HUES[i] : i === HUES.length ? tone("--ink") : tone("--pool"));

    function ramp(part) {
      const stops = RAMP[night() ? "night" : "day"], where = part * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(where));
      return `rgb(${stops[i].map((low, k) => Math.round(low + (stops[i + 1][k] - low) * (where - i))).join(",")})`;
    }

    // Points by colour, so that the pen changes colour a few hundred times and not once a point.
    let inks = [], bins = [];
    function colour() {
      const which = Number(choice.value), meta = data.columns[which], values = columns[`c${which}`];
      if (!meta) {
        inks = [tone("--pool")];
      } else if (meta.kind === "score") {
        inks = [...meta.levels.map((_, i) => ramp(meta.levels.length > 1 ? i / (meta.levels.length - 1) : 1)), tone("--line")];
      } else if (meta.kind === "cell") {
        inks = [...Array.from({ length: HUES.length + 1 }, (_, i) => hue(i)), tone("--line")];
      } else {
        inks = [...Array.from({ length: HUES.length + 2 }, (_, i) => hue(i)), tone("--line")];
      }
      const last = inks.length - 1, none = values && (values.BYTES_PER_ELEMENT === 1 ? 255 : values.BYTES_PER_ELEMENT === 2 ? 65535 : 4294967295);
      const ink = (i) => {
        if (!meta) return 0;
        if (values[i] === none) return last;
        return meta.kind === "cell" ? values[i] % (HUES.length + 1) : Math.min(values[i], last - 1);
      };
      bins = inks.map(() => [[], []]);
      for (let i = 0; i < n; i++) bins[ink(i)][mark[i] & 1].push(i);
      legend(meta);
      later();
    }

    function legend(meta) {
      const items = [];
      const item = (text, background, ring) => {
        const span = document.createElement("span"), swatch = document.createElement("span"), words = document.createElement("bdi");
        swatch.className = ring ? "swatch ring" : "swatch";
        if (background) swatch.style.background = background;
        words.textContent = text;
        span.append(swatch, words);
        items.push(span);
      };
      if (!meta) {
        item("chosen", tone("--chosen"));
        item("left out", tone("--pool"));
      } else if (meta.kind === "score") {
        const span = document.createElement("span"), bar = document.createElement("span");
        bar.className = "ramp";
        bar.style.background = `linear-gradient(to right, ${[0, 0.33, 0.67, 1].map(ramp).join(",")})`;
        const levels = meta.levels;
        span.append(levels[0], bar, `${levels[levels.length - 1]}; the middle of the bar is the median, ${levels[Math.floor((levels.length - 1) / 2)]}`);
        items.push(span);
      } else if (meta.kind === "cell") {
        item(`${meta.cells} cells share ${HUES.length + 1} colours in turn; point at a row for its cell`, HUES[0]);
      } else {
        const shown = meta.names.slice(0, HUES.length + 1);
        shown.forEach((name, i) => item(name, hue(i)));
        if (meta.names.length > shown.length) item("others", tone("--pool"));
      }
      if (meta) item("ringed: chosen", "", true);
      id("map-legend").replaceChildren(...items);
    }

    // Where the map lies on the canvas, read once a frame: asking an element for its size is slow.
    let frame = { size: 1, x: 0, y: 0 };
    function measure() {
      const w = canvas.clientWidth, h = canvas.clientHeight;
      frame = { size: (Math.min(w, h) - 28) * zoom, x: w / 2 + left, y: h / 2 + top };
    }
    const toX = (value) => (value / 65535 - 0.5) * frame.size + frame.x;
    const toY = (value) => (value / 65535 - 0.5) * frame.size + frame.y;

    function paint() {
      waiting = false;
      measure();
      const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
      if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
        canvas.width = Math.round(w * ratio);
        canvas.height = Math.round(h * ratio);
      }
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, w, h);
      const plain = choice.value === "-1", grain = (n > 40000 ? 1.4 : n > 8000 ? 2 : 3) * Math.min(2, Math.sqrt(zoom));
      if (!id("map-only").checked) {
        pen.globalAlpha = n > 8000 ? 0.55 : 0.8;
        bins.forEach(([others], i) => {
          pen.fillStyle = inks[i];
          const half = grain / 2;
          for (const point of others) pen.fillRect(toX(x[point]) - half, toY(y[point]) - half, grain, grain);
        });
      }
      pen.globalAlpha = 1;
      pen.lineWidth = plain ? 1 : order.length > 800 ? 0.7 : 1.3;
      pen.strokeStyle = plain ? tone("--card") : tone("--ink");
      const radius = (order.length > 4000 ? 2 : order.length > 800 ? 2.6 : 3.6) * Math.min(1.7, Math.sqrt(zoom));
      bins.forEach(([, chosen], i) => {
        pen.fillStyle = plain ? tone("--chosen") : inks[i];
        for (const point of chosen) {
          pen.beginPath();
          pen.arc(toX(x[point]), toY(y[point]), radius, 0, 2 * Math.PI);
          pen.fill();
          pen.stroke();
        }
      });
      if (at >= 0) {
        pen.beginPath();
        pen.arc(toX(x[at]), toY(y[at]), radius + 4, 0, 2 * Math.PI);
        pen.lineWidth = 2;
        pen.strokeStyle = tone("--ink");
        pen.stroke();
      }
    }
    const later = () => {
      if (!waiting) requestAnimationFrame(paint);
      waiting = true;
    };

    // Points in a 128 x 128 grid, to find the one under the pointer.
    const GRID = 128, heads = new Int32Array(GRID * GRID).fill(-1), next = new Int32Array(n);
    const cellOf = (value) => Math.min(GRID - 1, Math.floor((value / 65536) * GRID));
    for (let i = 0; i < n; i++) {
      const cell = cellOf(y[i]) * GRID + cellOf(x[i]);
      next[i] = heads[cell];
      heads[cell] = i;
    }
    function nearest(px, py) {
      const reach = 14, unit = 65535 / frame.size;
      const cx = ((px - frame.x) / frame.size + 0.5) * 65535, cy = ((py - frame.y) / frame.size + 0.5) * 65535;
      const low = (value) => Math.max(0, cellOf(Math.max(0, value - reach * unit))), far = (value) => Math.max(0, cellOf(value + reach * unit));
      let best = -1, least = reach * reach;
      for (let gy = low(cy); gy <= far(cy); gy++) {
        for (let gx = low(cx); gx <= far(cx); gx++) {
          for (let i = heads[gy * GRID + gx]; i >= 0; i = next[i]) {
            const chosen = mark[i] & 1;
            if (id("map-only").checked && !chosen) continue;
            const away = (((x[i] - cx) / unit) ** 2 + ((y[i] - cy) / unit) ** 2) * (chosen ? 0.5 : 1);
            if (away < least) [best, least] = [i, away];
          }
        }
      }
      return best;
    }

    function facts(point) {
      return data.columns.flatMap((meta, i) => {
        const value = columns[`c${i}`][point];
        if (meta.kind === "cell") return value < meta.cells ? [`cell ${value}`] : [];
        if (meta.kind === "group") return value < meta.names.length ? [meta.names[value]] : [];
        return value < meta.levels.length ? [`${meta.name} ≈ ${meta.levels[value]}`] : [];
      });
    }

    function show(point) {
      if (point === at) return;
      at = point;
      later();
      if (point < 0) return;
      const rank = place.get(point);
      const state = mark[point] & 1 ? (rank === undefined ? "chosen" : `pick ${(rank + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`) : mark[point] & 2 ? "excluded" : "left out";
      const line = (name, text, kind = "p") => {
        const element = document.createElement(kind);
        element.className = name;
        element.dir = "auto";
        element.textContent = text;
        return element;
      };
      const list = document.createElement("ul");
      list.append(...facts(point).map((fact) => line("", fact, "li")));
      id("map-row").replaceChildren(line("head", `row ${row[point].toLocaleString("en")} · ${state}`), line("text", excerpts[point] || "(no text)"), list);
    }

    function scale(factor, px = canvas.clientWidth / 2, py = canvas.clientHeight / 2) {
      const wanted = Math.max(1, Math.min(60, zoom * factor)), by = wanted / zoom;
      const mx = px - canvas.clientWidth / 2, my = py - canvas.clientHeight / 2;
      [left, top, zoom] = wanted === 1 ? [0, 0, 1] : [mx - (mx - left) * by, my - (my - top) * by, wanted];
      canvas.style.touchAction = zoom > 1 ? "none" : "pan-y";
      later();
    }
    function aim() {
      measure();
      return at < 0 ? [] : [toX(x[at]), toY(y[at])];
    }

    function reveal() {
      const [px, py] = aim(), w = canvas.clientWidth, h = canvas.clientHeight;
      if (px < 10 || px > w - 10) left += w / 2 - px;
      if (py < 10 || py > h - 10) top += h / 2 - py;
    }

    let grip = null, moved = false;
    canvas.addEventListener("pointerdown", (event) => {
      grip = [event.clientX - left, event.clientY - top];
      moved = false;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const under = grip ? -1 : nearest(event.offsetX, event.offsetY);
      if (under >= 0) return show(under);
      if (!grip) return undefined;
      const [a, b] = [event.clientX - grip[0], event.clientY - grip[1]];
      moved = moved || Math.hypot(a - left, b - top) > 3;
      if (!moved || zoom === 1) return undefined;
      [left, top] = [a, b];
      return later();
    });
    canvas.addEventListener("pointerup", (event) => {
      grip = null;
      const under = moved ? -1 : nearest(event.offsetX, event.offsetY);
      if (under >= 0) show(under);
    });
    canvas.addEventListener("pointercancel", () => (grip = null));
    canvas.addEventListener("dblclick", (event) => scale(2, event.offsetX, event.offsetY));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      scale(event.deltaY < 0 ? 1.25 : 0.8, event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step && order.length) {
        const now = place.get(at);
        show(order[now === undefined ? (step > 0 ? 0 : order.length - 1) : (now + step + order.length) % order.length]);
        reveal();
      } else if (event.key === "+" || event.key === "=") scale(1.5, ...aim());
      else if (event.key === "-") scale(1 / 1.5, ...aim());
      else if (event.key === "0") scale(0);
      else if (event.key === "Escape") show(-1);
      else return;
      event.preventDefault();
    });
    id("map-in").addEventListener("click", () => scale(1.5));
    id("map-out").addEventListener("click", () => scale(1 / 1.5));
    id("map-reset").addEventListener("click", () => scale(0));
    id("map-only").addEventListener("change", later);
    choice.addEventListener("change", colour);
    dark.addEventListener("change", colour);
    print.addEventListener("change", () => { colour(); paint(); });
    addEventListener("resize", later);
    canvas.style.touchAction = "pan-y";
    colour();
    if (order.length) show(order[0]);
  }
})();
