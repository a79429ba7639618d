// Draws the plots of the operator's page from the figures that the page holds. Nothing is fetched.
"use strict";

const DASHES = [[], [6, 4], [2, 3], [10, 4, 2, 4], [1, 2], [12, 3]];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function draw(place, at, lines) {
  const names = Object.keys(lines);
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  const clock = (_, ticks) => ticks.map((s) => new Date(1000 * s).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false }));
  const series = names.map((name, i) => ({
    label: name,
    stroke: colour(`--plot-${i % DASHES.length}`),
    dash: DASHES[i % DASHES.length],
    width: 2,
    spanGaps: true,
    points: { show: at.length < 3 },
    value: (_, value) => (value === null || value === undefined ? "–" : value.toPrecision(3)),
  }));
  const options = {
    width: Math.max(240, place.clientWidth),
    height: 190,
    scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
    axes: [{ ...axis, values: clock, space: 70 }, { ...axis, size: 60 }],
    series: [{ label: "time", value: "{YYYY}-{MM}-{DD} {HH}:{mm}" }, ...series],
    legend: { live: true },
  };
  place.replaceChildren();
  return new uPlot(options, [at, ...names.map((name) => lines[name])], place);
}

function drawAll() {
  const { at, ...every } = JSON.parse(document.getElementById("series").textContent);
  for (const place of document.querySelectorAll("[data-plot]")) draw(place, at, every[place.dataset.plot]);
}

let waiting;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(drawAll, 150); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawAll();
