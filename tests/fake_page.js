// Runs the script of a report on a page made of plain objects, uses it as a hand would, and prints what happened as JSON.
// node fake_page.js SCRIPT PAGE.json, where PAGE is {data, charts: [...], matrices: [...], clips: [...]}.
"use strict";
const fs = require("fs");
const vm = require("vm");
const page = JSON.parse(fs.readFileSync(process.argv[3], "utf8"));

function element(tag, dataset = {}) {
  const listeners = {};
  const drawn = [];
  const context = new Proxy({}, {
    get: (box, name) => name in box ? box[name]
      : name === "measureText" ? (text) => ({ width: 6 * text.length })
      : (...values) => { drawn.push([name, ...values]); },
    set: (box, name, value) => { box[name] = value; drawn.push(["set " + String(name), value]); return true; },
  });
  return {
    tag, dataset, drawn, children: [], style: { setProperty() {} }, attributes: {}, textContent: "", hidden: false,
    clientWidth: 300, clientHeight: 300, width: 0, height: 0, offsetWidth: 80, offsetHeight: 30,
    appendChild(child) { this.children.push(child); return child; },
    setAttribute(name, value) { this.attributes[name] = value; },
    addEventListener(name, f) { (listeners[name] = listeners[name] || []).push(f); },
    fire(name, event = {}) { (listeners[name] || []).forEach((f) => f(event)); },
    getBoundingClientRect: () => ({ left: 0, top: 0 }),
    getContext: () => context,
    find(kind) { return this.children.flatMap((c) => (c.tag === kind ? [c] : []).concat(c.find(kind))); },
  };
}

const charts = page.charts.map((chart) => Object.assign(element("canvas", { chart }), { nextElementSibling: element("div") }));
const matrices = page.matrices.map((matrix) => element("canvas", { matrix }));
const figures = page.clips.map((clip) => element("figure", { clip }));
const source = Object.assign(element("script"), { textContent: JSON.stringify(page.data) });
const tip = element("div"), nav = element("nav");
const lists = { "[data-chart]": charts, "[data-matrix]": matrices, "[data-clip]": figures, details: [] };
const frames = [];
const globals = {
  JSON, Math, Number, String, Object, Map, Int16Array, Uint8Array, DataView, atob,
  document: {
    documentElement: {},
    getElementById: (id) => ({ "report-data": source, tip })[id],
    querySelectorAll: (query) => lists[query],
    querySelector: () => nav,
    createElement: (tag) => element(tag),
  },
  getComputedStyle: () => ({ getPropertyValue: (name) => " " + name }),
  requestAnimationFrame: (f) => frames.push(f),
};
globals.window = { devicePixelRatio: 2, innerWidth: 1000, innerHeight: 800, addEventListener() {} };
vm.runInNewContext(fs.readFileSync(process.argv[2], "utf8"), globals);

let now = 0;
function pass(seconds) {
  for (let t = 0; t < seconds; t += 0.1) {
    now += 100;
    frames.splice(0).forEach((f) => f(now));
  }
}
function touch(canvas, x, y) {
  canvas.fire("pointermove", { clientX: x, clientY: y, buttons: 0 });
  const said = tip.hidden ? null : tip.textContent;
  canvas.fire("pointerleave");
  return said;
}

const player = figures[0];
const [button] = player.find("button"), [slider] = player.find("input"), all = nav.find("button")[0];
const out = { buttons: [button.textContent] };
pass(0.5);
const first = slider.value;
pass(0.5);
out.moved = [first, slider.value];
button.fire("click");
out.buttons.push(button.textContent);
pass(1);
out.paused = [out.moved[1], slider.value];
slider.value = 3;
slider.fire("input");
button.fire("click");
pass(0.3);
out.from_three = slider.value;
all.fire("click");
out.buttons.push(all.textContent, button.textContent);
const lines = (canvas) => canvas.drawn.filter((d) => d[0] === "lineTo");
const [canvas] = player.find("canvas");
canvas.drawn.length = 0;
canvas.fire("pointerdown", { clientX: 10, clientY: 0, buttons: 1 });
canvas.fire("pointermove", { clientX: 10, clientY: 0, buttons: 1 });
const before = JSON.stringify(lines(canvas));
canvas.drawn.length = 0;
canvas.fire("pointermove", { clientX: 70, clientY: 0, buttons: 1 });
out.turned = before !== JSON.stringify(lines(canvas));
out.lines = lines(canvas).length;
out.colours = figures.map((f) => f.find("canvas").map((c) => [...new Set(c.drawn.filter((d) => d[0] === "set strokeStyle").map((d) => d[1]))]));
out.chart = charts.map((c) => touch(c, 120, 100));
const legend = charts.map((c) => c.nextElementSibling).find((l) => l.children.length);
legend.children[0].fire("click");
out.legend = [legend.children.length, legend.children[0].attributes["aria-pressed"]];
const chart = charts[charts.findIndex((c) => c.nextElementSibling === legend)];
out.without = touch(chart, 120, 100);
const K = page.data.matrices[Number(matrices[0].dataset.matrix)].names.length;
out.cell = touch(matrices[0], 4 + 0.5 * 292 / K, 4 + 1.5 * 292 / K);
out.outside = touch(matrices[0], 4 + 0.5 * 292 / K, 400);
out.alphas = matrices[0].drawn.filter((d) => d[0] === "set globalAlpha").map((d) => d[1]);
out.wrong = [...charts, ...matrices].flatMap((c) => c.drawn).filter((d) => d.some((v) => typeof v === "number" && !Number.isFinite(v)));
console.log(JSON.stringify(out));
