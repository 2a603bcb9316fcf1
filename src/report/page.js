// Each static picture is replaced by its interactive plot when it comes near the screen; colours follow the system.
(() => {
  if (!window.Plotly) return;
  const figures = new Map(JSON.parse(document.getElementById("figures").textContent).map((f) => [f.id, f]));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const themed = (figure, box) => {
    const layout = structuredClone(figure.layout);
    const narrow = box.clientWidth < 560;
    Object.keys(layout).filter((key) => /^[xy]axis/.test(key)).forEach((key) => {
      Object.assign(layout[key], { gridcolor: colour("--grid"), linecolor: colour("--muted"),
        showgrid: key[0] === "y", ticks: key[0] === "x" ? "outside" : "" });
    });
    const panels = Object.keys(layout).filter((key) => /^xaxis/.test(key)).length;
    if (narrow && panels > 1 && !figure.stacked) {
      // One panel below the other, where there is no room beside.
      Object.keys(layout).filter((key) => /^xaxis/.test(key)).forEach((key, place) => {
        layout[key].domain = [0, 1];
        const height = 1 / panels;
        layout[key.replace("x", "y")].domain = [1 - (place + 0.8) * height, 1 - (place + 0.04) * height];
      });
    }
    return Object.assign(layout, { paper_bgcolor: colour("--card"), plot_bgcolor: colour("--card"),
      font: { color: colour("--ink"), family: "system-ui, sans-serif", size: narrow ? 12 : 14 },
      margin: { l: 60, r: 16, t: 60, b: 56 }, hovermode: "closest", autosize: true,
      height: figure.stacked ? 230 * panels + 116 : panels > 3 ? (narrow ? 330 * panels : 760) : panels > 1 ? (narrow ? 360 * panels : 470) : 400,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" } });
  };
  const drawn = new Set();
  const draw = (id) => {
    const box = document.querySelector(`#${CSS.escape(id)} .plot`);
    const figure = figures.get(id);
    if (!box || !figure) return;
    if (!drawn.has(id)) box.replaceChildren();
    drawn.add(id);
    Plotly.react(box, figure.data, themed(figure, box), { responsive: true, displaylogo: false,
      displayModeBar: box.clientWidth < 560 ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"] });
  };
  const near = new IntersectionObserver((seen) => seen.filter((entry) => entry.isIntersecting).forEach((entry) => {
    near.unobserve(entry.target);
    draw(entry.target.id);
  }), { rootMargin: "600px" });
  document.querySelectorAll("figure[id]").forEach((figure) => near.observe(figure));
  // The rest follows one by one, so that nobody who scrolls fast waits.
  const rest = [...figures.keys()];
  const next = () => {
    const id = rest.find((id) => !drawn.has(id));
    if (id === undefined) return;
    draw(id);
    if (drawn.has(id)) setTimeout(next, 50);
  };
  setTimeout(next, 300);
  dark.addEventListener("change", () => drawn.forEach(draw));
  addEventListener("beforeprint", () => figures.forEach((_, id) => draw(id)));
})();
