"use strict";
// The moving parts of a report: charts, confusion matrices and stick figures. All text goes in as text, never as HTML.
(function () {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const tip = document.getElementById("tip");
  const redraws = []; // everything that is drawn again when the window or the colours change

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim() || "#888888";
  }

  function make(tag, parent, text) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    parent.appendChild(element);
    return element;
  }

  // The canvas at the size that it has on the page, in sharp pixels: [context, width, height] in CSS pixels.
  function paper(canvas) {
    const width = canvas.clientWidth || 300, height = canvas.clientHeight || 200, fine = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * fine)) canvas.width = Math.round(width * fine);
    if (canvas.height !== Math.round(height * fine)) canvas.height = Math.round(height * fine);
    const context = canvas.getContext("2d");
    context.setTransform(fine, 0, 0, fine, 0, 0);
    context.clearRect(0, 0, width, height);
    return [context, width, height];
  }

  function place(event, canvas) {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  function showTip(event, text) {
    tip.textContent = text;
    tip.hidden = false;
    const width = tip.offsetWidth || 0, height = tip.offsetHeight || 0;
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, window.innerWidth - width - 8)) + "px";
    tip.style.top = Math.max(4, event.clientY > height + 24 ? event.clientY - height - 14 : event.clientY + 18) + "px";
  }

  function hideTip() {
    tip.hidden = true;
  }

  function short(value) {
    if (value === null || value === undefined) return "none";
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  }

  // About `count` round numbers from low to high.
  function ticks(low, high, count) {
    const rough = (high - low) / count || 1, power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
    return found;
  }

  // -- charts -----------------------------------------------------------------------------------------------------------

  function Chart(canvas, panel, legend) {
    const hidden = panel.series.map(() => false);
    let at = null; // the x that is pointed at
    let scale = null;

    function limits() {
      const xs = [], ys = [];
      panel.series.forEach((s, i) => s.x.forEach((x, k) => {
        if (!hidden[i] && s.y[k] !== null) { xs.push(x); ys.push(s.y[k]); }
      }));
      if (!xs.length) return [0, 1, 0, 1];
      const least = (list) => list.reduce((a, b) => Math.min(a, b)), most = (list) => list.reduce((a, b) => Math.max(a, b));
      let low = least(ys), high = most(ys);
      const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
      return [least(xs), most(xs), low - room, high + room];
    }

    function draw() {
      const [c, width, height] = paper(canvas);
      const [x0, x1, y0, y1] = limits(), left = 50, right = 10, top = 10, bottom = 22;
      const px = (x) => left + (x1 > x0 ? (x - x0) / (x1 - x0) : 0.5) * (width - left - right);
      const py = (y) => height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom);
      scale = { x0, x1, left, right, width };
      c.font = "11px system-ui, sans-serif";
      c.lineWidth = 1;
      c.strokeStyle = colour("line");
      c.fillStyle = colour("quiet");
      c.textAlign = "right";
      c.textBaseline = "middle";
      ticks(y0, y1, 4).forEach((y) => {
        c.beginPath(); c.moveTo(left, py(y)); c.lineTo(width - right, py(y)); c.stroke();
        c.fillText(short(y), left - 6, py(y));
      });
      c.textAlign = "center";
      c.textBaseline = "top";
      ticks(x0, x1, Math.max(2, Math.floor(width / 60))).filter(Number.isInteger).forEach((x) => c.fillText(short(x), px(x), height - bottom + 6));
      c.lineWidth = 1.8;
      c.lineJoin = "round";
      panel.series.forEach((s, i) => {
        if (hidden[i]) return;
        c.strokeStyle = c.fillStyle = colour("c" + i % 8);
        c.beginPath();
        let open = false;
        s.x.forEach((x, k) => {
          if (s.y[k] === null) { open = false; return; }
          if (open) c.lineTo(px(x), py(s.y[k])); else c.moveTo(px(x), py(s.y[k]));
          open = true;
        });
        c.stroke();
        if (s.x.length === 1 && s.y[0] !== null) dot(c, px(s.x[0]), py(s.y[0]));
      });
      if (at !== null) {
        c.strokeStyle = colour("quiet");
        c.lineWidth = 1;
        c.beginPath(); c.moveTo(px(at), top); c.lineTo(px(at), height - bottom); c.stroke();
        panel.series.forEach((s, i) => {
          const k = s.x.indexOf(at);
          if (hidden[i] || k < 0 || s.y[k] === null) return;
          c.fillStyle = colour("c" + i % 8);
          dot(c, px(at), py(s.y[k]));
        });
      }
    }

    function dot(c, x, y) {
      c.beginPath(); c.arc(x, y, 3, 0, 7); c.fill();
    }

    function point(event) {
      const wanted = scale.x0 + (place(event, canvas)[0] - scale.left) / (scale.width - scale.left - scale.right) * (scale.x1 - scale.x0);
      let best = null;
      panel.series.forEach((s, i) => s.x.forEach((x) => {
        if (!hidden[i] && (best === null || Math.abs(x - wanted) < Math.abs(best - wanted))) best = x;
      }));
      at = best;
      draw();
      if (best === null) return;
      const lines = [];
      panel.series.forEach((s, i) => {
        const k = s.x.indexOf(best);
        if (!hidden[i] && k >= 0) lines.push((s.label ? s.label + ": " : "") + short(s.y[k]));
      });
      showTip(event, "at " + short(best) + "\n" + lines.join("\n"));
    }

    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointerleave", () => { at = null; hideTip(); draw(); });
    if (panel.series.length > 1) panel.series.forEach((s, i) => {
      const button = make("button", legend, s.label);
      button.setAttribute("aria-pressed", "true");
      button.style.setProperty("--of", "var(--c" + i % 8 + ")");
      button.addEventListener("click", () => {
        hidden[i] = !hidden[i];
        button.setAttribute("aria-pressed", String(!hidden[i]));
        draw();
      });
    });
    redraws.push(draw);
    draw();
  }

  // -- confusion matrices -------------------------------------------------------------------------------------------------

  function Matrix(canvas, matrix) {
    const names = matrix.names, counts = matrix.counts, K = names.length;
    const sums = counts.map((row) => row.reduce((a, b) => a + b, 0));
    let chosen = null, left = 0, cell = 1;

    function label(c, name, width) {
      if (c.measureText(name).width <= width) return name;
      let end = name.length;
      while (end > 1 && c.measureText(name.slice(0, end) + "…").width > width) end--;
      return name.slice(0, end) + "…";
    }

    function draw() {
      const [c, width] = paper(canvas);
      const named = K <= 40 && width > 420;
      left = named ? Math.min(150, width * 0.26) : 4;
      cell = (width - left - 4) / K;
      c.fillStyle = colour("heat");
      for (let i = 0; i < K; i++) for (let j = 0; j < K; j++) {
        if (!counts[i][j]) continue;
        c.globalAlpha = Math.min(1, 0.08 + 0.92 * counts[i][j] / sums[i]); // more than 1 would be ignored
        c.fillRect(left + j * cell, 4 + i * cell, Math.max(cell - (cell > 6 ? 1 : 0), 0.5), Math.max(cell - (cell > 6 ? 1 : 0), 0.5));
      }
      c.globalAlpha = 1;
      if (named) {
        c.font = Math.min(11, Math.max(7, cell * 0.7)) + "px system-ui, sans-serif";
        c.textBaseline = "middle";
        names.forEach((name, i) => {
          c.fillStyle = colour(chosen && chosen[0] === i ? "ink" : "quiet");
          c.textAlign = "right";
          c.fillText(label(c, name, left - 10), left - 6, 4 + (i + 0.5) * cell);
          c.save();
          c.translate(left + (i + 0.5) * cell, 4 + K * cell + 5);
          c.rotate(-Math.PI / 2);
          c.fillStyle = colour(chosen && chosen[1] === i ? "ink" : "quiet");
          c.fillText(label(c, name, left - 12), 0, 0);
          c.restore();
        });
      }
      if (chosen) {
        c.strokeStyle = colour("ink");
        c.lineWidth = 2;
        c.strokeRect(left + chosen[1] * cell, 4 + chosen[0] * cell, cell, cell);
      }
    }

    function point(event) {
      const [x, y] = place(event, canvas), j = Math.floor((x - left) / cell), i = Math.floor((y - 4) / cell);
      if (i < 0 || j < 0 || i >= K || j >= K) { leave(); return; }
      chosen = [i, j];
      draw();
      const share = sums[i] ? " (" + (100 * counts[i][j] / sums[i]).toFixed(1) + " %)" : "";
      const said = i === j ? "recognised" : "taken for " + names[j];
      showTip(event, names[i] + "\n" + said + ": " + counts[i][j] + " of " + sums[i] + share);
    }

    function leave() {
      chosen = null;
      hideTip();
      draw();
    }

    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointerleave", leave);
    redraws.push(draw);
    draw();
  }

  // -- moving figures -------------------------------------------------------------------------------------------------------

  const ABSENT = -32768, REST = 0.5; // seconds between the end of a clip and its beginning
  const players = [];
  let before = null, awake = false;

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  }

  function numbers(text) {
    const raw = bytes(text), view = new DataView(raw.buffer), out = new Int16Array(raw.length / 2);
    for (let i = 0; i < out.length; i++) out[i] = view.getInt16(2 * i, true);
    return out;
  }

  function Player(figure, clip) {
    const layout = data.layouts[clip.layout], V = layout.parents.length;
    const hidden = clip.hidden ? bytes(clip.hidden) : null;
    const row = make("div", figure);
    row.className = "stages";
    const stages = clip.stages.map((stage) => {
      const box = make("div", row);
      if (clip.stages.length > 1) make("small", box, stage.kind);
      return { kind: stage.kind, persons: stage.persons, scale: stage.scale, at: numbers(stage.data), canvas: make("canvas", box) };
    });
    const bar = make("div", figure);
    bar.className = "controls";
    const button = make("button", bar, "Play"), slider = make("input", bar);
    slider.type = "range";
    slider.min = 0;
    slider.max = clip.frames - 1;
    slider.value = 0;
    slider.setAttribute("aria-label", "frame");
    const self = { playing: false, visible: true, frame: 0, time: 0, turn: 0.5, draw, advance, play };
    const room = extent();

    // Middle of the clip, its half height, and its reach around the upright axis, in the data's unit.
    function extent() {
      const low = [1e9, 1e9, 1e9], high = [-1e9, -1e9, -1e9];
      stages.forEach((s) => {
        for (let i = 0; i < s.at.length; i += 3) {
          if (s.at[i] === ABSENT) continue;
          for (let k = 0; k < 3; k++) {
            low[k] = Math.min(low[k], s.at[i + k] * s.scale);
            high[k] = Math.max(high[k], s.at[i + k] * s.scale);
          }
        }
      });
      if (low[0] > high[0]) return { middle: [0, 0, 0], tall: 1, wide: 1 };
      const middle = low.map((l, k) => (l + high[k]) / 2);
      const reach = Math.hypot(high[0] - middle[0], high[2] - middle[2]);
      return { middle, tall: Math.max(high[1] - middle[1], 1e-6), wide: Math.max(reach, 1e-6) };
    }

    function draw() {
      const cos = Math.cos(self.turn), sin = Math.sin(self.turn);
      stages.forEach((s) => {
        const [c, width, height] = paper(s.canvas);
        const size = 0.92 * Math.min(width / (2 * room.wide), height / (2 * room.tall));
        c.lineWidth = Math.max(2, Math.min(width, height) / 90);
        c.lineCap = "round";
        for (let m = s.persons - 1; m >= 0; m--) for (let j = 0; j < V; j++) {
          const parent = layout.parents[j], veiled = hidden && m === 0 && hidden[self.frame * V + j];
          if (parent === j || (veiled && s.kind === "seen")) continue;
          const a = joint(j, m, s), b = joint(parent, m, s);
          if (!a || !b) continue;
          c.strokeStyle = colour(m ? "other" : s.kind === "plain" ? "part" + layout.part[j] : veiled ? s.kind : "seen");
          c.beginPath(); c.moveTo(a[0], a[1]); c.lineTo(b[0], b[1]); c.stroke();
        }
        function joint(j, m, s) {
          const i = ((self.frame * s.persons + m) * V + j) * 3;
          if (s.at[i] === ABSENT) return null;
          const x = s.at[i] * s.scale - room.middle[0], y = s.at[i + 1] * s.scale - room.middle[1];
          const z = s.at[i + 2] * s.scale - room.middle[2];
          return [width / 2 + size * (cos * x - sin * z), height / 2 - size * y];
        }
      });
    }

    function advance(seconds) {
      self.time = (self.time + seconds) % (clip.frames / clip.fps + REST);
      const frame = Math.min(Math.floor(self.time * clip.fps), clip.frames - 1);
      if (frame === self.frame) return;
      self.frame = frame;
      slider.value = frame;
      draw();
    }

    function play(on) {
      self.playing = on;
      button.textContent = on ? "Pause" : "Play";
      wake();
    }

    button.addEventListener("click", () => play(!self.playing));
    slider.addEventListener("input", () => {
      play(false);
      self.frame = Number(slider.value);
      self.time = self.frame / clip.fps;
      draw();
    });
    stages.forEach((s) => {
      let from = null;
      s.canvas.addEventListener("pointerdown", (event) => { from = [event.clientX, self.turn]; });
      s.canvas.addEventListener("pointermove", (event) => {
        if (!from || !event.buttons) { from = null; return; }
        self.turn = from[1] + (event.clientX - from[0]) / 90;
        draw();
      });
    });
    players.push(self);
    redraws.push(draw);
    draw();
    return self;
  }

  function wake() {
    if (awake || !players.some((p) => p.playing && p.visible)) return;
    awake = true;
    before = null;
    requestAnimationFrame(loop);
  }

  function loop(now) {
    const seconds = before === null ? 0 : Math.min((now - before) / 1000, 0.2);
    before = now;
    const moving = players.filter((p) => p.playing && p.visible);
    moving.forEach((p) => p.advance(seconds));
    awake = moving.length > 0;
    if (awake) requestAnimationFrame(loop);
  }

  // -- start --------------------------------------------------------------------------------------------------------------

  document.querySelectorAll("[data-chart]").forEach((canvas) => {
    const [i, j] = canvas.dataset.chart.split(",").map(Number);
    Chart(canvas, data.charts[i][j], canvas.nextElementSibling);
  });
  document.querySelectorAll("[data-matrix]").forEach((canvas) => Matrix(canvas, data.matrices[Number(canvas.dataset.matrix)]));
  const seen = new Map();
  document.querySelectorAll("[data-clip]").forEach((figure) => {
    if (Object.hasOwn(data.clips, figure.dataset.clip)) seen.set(figure, Player(figure, data.clips[figure.dataset.clip]));
  });
  const still = window.matchMedia && window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (typeof IntersectionObserver === "function") {
    const watch = new IntersectionObserver((entries) => entries.forEach((e) => {
      seen.get(e.target).visible = e.isIntersecting;
      wake();
    }));
    seen.forEach((player, figure) => { player.visible = false; watch.observe(figure); });
  }
  players.forEach((player) => player.play(!still));
  if (players.length) {
    const all = make("button", document.querySelector("nav"), still ? "Play all" : "Pause all");
    all.id = "all";
    all.addEventListener("click", () => {
      const on = !players.some((p) => p.playing);
      players.forEach((p) => p.play(on));
      all.textContent = on ? "Pause all" : "Play all";
    });
  }
  const again = () => redraws.forEach((draw) => draw());
  window.addEventListener("resize", again);
  if (window.matchMedia) window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  document.querySelectorAll("details").forEach((part) => part.addEventListener("toggle", again));
})();
