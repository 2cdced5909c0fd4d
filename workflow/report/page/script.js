// Figures that react to hover, that show and hide lines, and that change their x axis; CSV downloads without compression.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures-data").textContent);
  const style = () => getComputedStyle(document.documentElement);
  const colour = (name) => (name === "ink" || name === "muted" ? style().getPropertyValue(`--${name}`).trim() : name);
  const axisNames = { step: "training step", tokens: "training tokens", FLOPs: "training FLOPs (6 × parameters × tokens)", update: "optimizer update", forecaster: "" };
  const suffix = (panel) => (panel ? panel + 1 : "");
  // Names come from data: Plotly reads a small set of tags in texts.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const broken = (text) => plain(text.length > 26 ? `${text.slice(0, 25)}…` : text);

  const extent = (figure, axis) => {
    const places = figure.traces.filter((trace) => trace.x && typeof trace.x[axis][0] === "number").flatMap((trace) => trace.x[axis]);
    if (!places.length) return [0, 1];
    const first = Math.min(...places), last = Math.max(...places), margin = 0.04 * (last - first) || 0.5;
    return [first - margin, last + margin]; // beyond the scores: at one place with a score, a level could take its hover
  };

  const hover = (trace, index, axis) => {
    const interval = trace.low && trace.low[index] !== null ? `<br>interval ${trace.low[index]} to ${trace.high[index]}` : "";
    const n = trace.n && trace.n[index] !== null ? `<br>n ${trace.n[index]}` : "";
    const step = axis === "tokens" || axis === "FLOPs" ? ` (step ${trace.x.step[index]})` : "";
    return `${plain(trace.name)}<br>${axis} ${plain(trace.x[axis][index])}${step}<br>value ${trace.y[index]}${interval}${n}`;
  };

  const toTrace = (figure, trace, axis, off) => {
    const place = { xaxis: `x${suffix(trace.panel)}`, yaxis: `y${suffix(trace.panel)}`, name: plain(trace.name), showlegend: false, visible: !off.has(trace.group) };
    const line = { color: colour(trace.colour), dash: trace.dash, width: trace.size ? 1 + trace.size / 5 : 1.3 };
    if (trace.level !== undefined) {
      const ends = extent(figure, axis);
      return { ...place, type: "scatter", mode: "lines", x: ends, y: [trace.level, trace.level], line: { ...line, width: 1.5 }, hovertemplate: `${plain(trace.name)} ${trace.level}<extra></extra>` };
    }
    const error = trace.low && { type: "data", symmetric: false, thickness: 1.2, width: 3, array: trace.y.map((y, i) => (trace.high[i] === null ? 0 : trace.high[i] - y)), arrayminus: trace.y.map((y, i) => (trace.low[i] === null ? 0 : y - trace.low[i])) };
    const texts = trace.y.map((_, index) => hover(trace, index, axis));
    const x = trace.dots ? trace.x[axis].map(broken) : trace.x[axis];
    return { ...place, type: "scatter", mode: trace.dots ? "markers" : trace.size ? "lines+markers" : "lines", x, y: trace.y, line, marker: { symbol: trace.symbol, size: trace.size || 4, color: colour(trace.colour) }, error_y: error, text: texts, hovertemplate: "%{text}<extra></extra>", hoverlabel: { align: "left" } };
  };

  const layout = (figure, axis, width, marked) => {
    const count = figure.panels.length;
    const columns = Math.max(1, Math.min(count, Math.floor(width / 270)));
    const rows = Math.ceil(count / columns);
    const dots = figure.traces.some((trace) => trace.dots);
    const text = { color: colour("ink"), size: 12 };
    const made = { grid: { rows, columns, pattern: "independent", xgap: 0.22, ygap: dots ? 0.55 : 0.34 }, width, height: rows * (dots ? 270 : 235) + (dots ? 70 : 40), margin: { l: 52, r: 12, t: 34, b: dots ? 100 : 48 }, font: text, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", annotations: [] };
    const grid = { gridcolor: style().getPropertyValue("--line").trim(), zerolinecolor: colour("muted"), automargin: false };
    figure.panels.forEach((panel, index) => {
      const lowest = index + columns >= count;
      made[`xaxis${suffix(index)}`] = { ...grid, title: { text: lowest ? axisNames[axis] : "", font: { size: 11 } }, exponentformat: "SI", nticks: 5, ...(dots ? { type: "category", tickangle: -50, dtick: 1, tickfont: { size: 9 } } : { matches: index ? "x" : undefined }) };
      made[`yaxis${suffix(index)}`] = { ...grid, title: { text: plain(panel.y), font: { size: 11 }, standoff: 4 }, nticks: 5, matches: index && figure.shared ? "y" : undefined };
      made.annotations.push({ text: `<b>${marked && panel.title === marked ? "▶ " : ""}${broken(panel.title)}</b>`, xref: `x${suffix(index)} domain`, yref: `y${suffix(index)} domain`, x: 0, y: 1, xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 12 } });
    });
    return made;
  };

  const states = new Map();
  const drawn = new Set();
  const draw = (element) => {
    const figure = figures[element.dataset.key], state = states.get(element);
    const plot = element.querySelector(".plot");
    const traces = figure.traces.map((trace) => toTrace(figure, trace, state.axis, state.off));
    const options = { displaylogo: false, displayModeBar: false, plotlyServerURL: "", showSendToCloud: false };
    Plotly.react(plot, traces, layout(figure, state.axis, plot.clientWidth, state.marked), options);
    drawn.add(element);
  };

  const controls = (element, figure, state) => {
    const place = element.querySelector(".controls");
    if (figure.axes.length > 1) {
      const select = document.createElement("select");
      figure.axes.forEach((name) => select.add(new Option(name, name)));
      select.addEventListener("change", () => { state.axis = select.value; draw(element); });
      const label = document.createElement("label");
      label.append("x axis ", select);
      place.append(label);
    }
    const groups = new Map(figure.traces.map((trace) => [trace.group, trace]));
    if (groups.size > 1) groups.forEach((trace, group) => place.append(toggle(element, trace, group, state)));
  };

  const toggle = (element, trace, group, state) => {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.borderTopColor = trace.colour === "ink" || trace.colour === "muted" ? `var(--${trace.colour})` : trace.colour;
    swatch.style.borderTopStyle = { dot: "dotted", dash: "dashed", dashdot: "dashed" }[trace.dash] || "solid";
    box.addEventListener("change", () => { state.off[box.checked ? "delete" : "add"](group); draw(element); });
    label.append(box, swatch, group);
    return label;
  };

  const all = [...document.querySelectorAll("figure.chart")];
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
  }), { rootMargin: "300px" });
  all.forEach((element) => { // room for figure and controls from the start, so that nothing moves under a reader or a link
    const figure = figures[element.dataset.key], plot = element.querySelector(".plot");
    const state = { axis: figure.axes[0] || Object.keys(figure.traces[0].x)[0], off: new Set() };
    states.set(element, state);
    controls(element, figure, state);
    plot.style.minHeight = `${layout(figure, figure.axes[0] || "step", plot.clientWidth).height}px`;
    seen.observe(element);
  });
  const again = () => drawn.forEach(draw);
  let width = window.innerWidth;
  window.addEventListener("resize", () => { if (window.innerWidth !== width) { width = window.innerWidth; again(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details.more").forEach((element) => { element.open = true; });
    all.forEach(draw);
  });

  // The figure of a sentence marks the panel that the sentence is about.
  document.querySelectorAll("a.shows").forEach((link) => link.addEventListener("click", () => {
    const element = document.getElementById(link.hash.slice(1));
    states.get(element).marked = link.dataset.panel;
    draw(element);
  }));

  // Links into folded parts open them.
  const reveal = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let element = target; element; element = element.parentElement) if (element.tagName === "DETAILS") element.open = true;
  };
  window.addEventListener("hashchange", reveal);
  reveal();

  // A CSV is kept compressed in the page and is handed out as plain text.
  document.querySelectorAll("a.csv").forEach((link) => link.addEventListener("click", async (event) => {
    if (!link.href.startsWith("data:") || !window.DecompressionStream) return;
    event.preventDefault();
    const bytes = Uint8Array.from(atob(link.href.split(",")[1]), (char) => char.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const plainCopy = Object.assign(document.createElement("a"), { href: URL.createObjectURL(await new Response(stream).blob()), download: link.download.replace(/\.gz$/, "") });
    plainCopy.click();
    setTimeout(() => URL.revokeObjectURL(plainCopy.href), 10000);
  }));
})();
