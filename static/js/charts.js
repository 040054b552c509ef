/* Charts: lines of money over time, with the numbers in a table beside them. Loaded only where there are charts. */
(() => {
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const money = (value) => `$${value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  const charts = new Map();

  const reach = { "24h": 864e5, "7d": 7 * 864e5, "30d": 30 * 864e5 };
  const from = (element, points) => {
    const last = points.length ? Date.parse(points[points.length - 1][0]) : Date.now();
    return last - (reach[new URL(element.dataset.source, window.location.href).searchParams.get("range")] ?? 864e5);
  };

  const options = (element, points) => ({
    animation: false,
    aria: { enabled: true, label: { description: `Cost of the fleet in dollars per hour over time, time zone ${zone}.` } },
    grid: { left: 56, right: 16, top: 16, bottom: 28 },
    textStyle: { fontFamily: token("--tabler-font-sans-serif"), fontSize: 12 },
    tooltip: {
      trigger: "axis",
      renderMode: "richText",
      backgroundColor: token("--raised"),
      borderColor: token("--line-strong"),
      textStyle: { color: token("--ink"), fontSize: 12 },
      axisPointer: { lineStyle: { color: token("--line-strong") } },
      formatter: ([point]) => `${new Date(point.value[0]).toLocaleString()}\n${money(point.value[1])} /h`,
    },
    xAxis: {
      type: "time",
      min: from(element, points),
      axisLine: { lineStyle: { color: token("--line-strong") } },
      axisTick: { show: false },
      axisLabel: { color: token("--ink-3"), hideOverlap: true },
      splitLine: { show: false },
    },
    yAxis: {
      type: "value",
      min: 0,
      splitNumber: 4,
      axisLabel: { color: token("--ink-3"), formatter: (value) => `$${value}` },
      splitLine: { lineStyle: { color: token("--line") } },
    },
    series: [{
      type: "line",
      data: points,
      showSymbol: points.length < 3,
      step: "end",
      lineStyle: { width: 1.75, color: token("--ink") },
      itemStyle: { color: token("--ink") },
      areaStyle: { color: token("--ink"), opacity: 0.06 },
    }],
  });

  const draw = async (element, { fetchAgain = false } = {}) => {
    const known = charts.get(element);
    if (known && !fetchAgain) {
      known.chart.setOption(options(element, known.points), true);
      return;
    }
    const response = await fetch(element.dataset.source, { headers: { Accept: "application/json" } });
    if (!response.ok) return;
    const { points } = await response.json();
    const numbers = points.map((point) => [point.at, Number(point.usd_per_hour)]);
    const chart = known?.chart ?? window.echarts.init(element);
    charts.set(element, { chart, points: numbers });
    chart.setOption(options(element, numbers), true);
  };

  const each = (how) => { for (const element of document.querySelectorAll("[data-chart]")) draw(element, how); };
  document.addEventListener("DOMContentLoaded", () => each({}));
  document.addEventListener("themechange", () => each({}));
  document.addEventListener("live:tick", () => each({ fetchAgain: true }));
  window.addEventListener("resize", () => { for (const { chart } of charts.values()) chart.resize(); });
})();
