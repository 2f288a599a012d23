"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const drawn = new Map();

  const draw = (holder, chart) => {
    const old = drawn.get(holder);
    if (old) old.destroy();
    const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
    const stepped = uPlot.paths.stepped({ align: 1 });
    const series = chart.series.map((each) => each.mark !== null ? {
      label: each.label,
      stroke: colour(each.colour),
      scale: "share",
      paths: () => null,
      points: { show: true, size: 8, fill: colour(each.colour), stroke: colour(each.colour) },
    } : {
      label: each.label,
      stroke: each.stacked ? undefined : colour(each.colour),
      width: each.stacked ? 0 : 2,
      fill: each.stacked ? colour(each.colour) : each.shaded ? colour(each.colour) + "40" : undefined,
      dash: each.dashed ? [6, 4] : undefined,
      scale: each.scale || "y",
      paths: stepped,
      points: { show: false },
    });
    const heights = (each) => each.mark === null ? each.values : each.values.map((count) => count > 0 ? each.mark : null);
    const plot = new uPlot(
      {
        width: Math.max(240, holder.clientWidth),
        height: 240,
        scales: {
          x: { time: false },
          y: { range: (_, low, high) => [0, chart.top ?? Math.max(1, high * 1.05)] },
          share: { range: [0, 1] },
        },
        axes: [
          { ...axis, label: "seconds since the start", labelSize: 22, stroke: colour("quiet") },
          { ...axis, size: 60, values: chart.percent ? (_, ticks) => ticks.map((tick) => Math.round(tick * 100) + " %") : undefined },
        ],
        cursor: { drag: { x: true, y: false } },
        legend: { show: false },
        series: [{ label: "seconds" }, ...series],
      },
      [chart.times, ...chart.series.map(heights)],
      holder,
    );
    for (const canvas of holder.querySelectorAll("canvas")) canvas.setAttribute("aria-hidden", "true");
    drawn.set(holder, plot);
  };

  const drawAll = () => {
    for (const holder of document.querySelectorAll(".chart")) {
      const chart = charts[holder.id];
      if (chart && chart.times.length) draw(holder, chart);
    }
  };
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const resized = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const plot = drawn.get(entry.target);
      const width = Math.max(240, Math.floor(entry.contentRect.width));
      if (plot && plot.width !== width) plot.setSize({ width, height: plot.height });
    }
  });
  for (const holder of document.querySelectorAll(".chart")) resized.observe(holder);
})();
