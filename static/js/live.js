/* Keep the page true: a socket says what changed, parts refetch themselves, ages count on.

   Parts listen with hx-trigger="live:<topic> from:body, live:tick from:body". A tick comes every 30 s while the socket
   is up and every 5 s while it is down, so that a lost push only delays a refresh. */
(() => {
  const root = document.documentElement;
  const rate = Number(root.dataset.clockRate || 1);
  const servedAt = Date.parse(root.dataset.now);
  const loaded = performance.now();
  const now = () => servedAt + (performance.now() - loaded) * rate;

  const duration = (seconds) => {
    const s = Math.max(0, Math.trunc(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.trunc(s / 60)} min`;
    if (s < 86400) return `${Math.trunc(s / 3600)} h` + (Math.trunc((s % 3600) / 60) ? ` ${Math.trunc((s % 3600) / 60)} min` : "");
    return `${Math.trunc(s / 86400)} d` + (Math.trunc((s % 86400) / 3600) ? ` ${Math.trunc((s % 86400) / 3600)} h` : "");
  };
  const age = (moment) => {
    const seconds = (now() - moment) / 1000;
    if (Math.abs(seconds) < 1 || (seconds < 0 && seconds > -5 * rate)) return "just now"; // clocks differ a little
    return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
  };
  const showAges = () => {
    for (const element of document.querySelectorAll("time[data-age]")) {
      const text = age(Date.parse(element.dateTime));
      if (element.textContent !== text) element.textContent = text;
    }
    const minute = new Date(now()).toISOString().slice(0, 16).replace("T", " ");
    for (const element of document.querySelectorAll("time[data-clock]")) {
      if (element.textContent !== minute) element.textContent = minute;
    }
  };
  setInterval(showAges, 1000);

  const light = () => document.querySelector("[data-live]");
  const show = (state, text) => {
    const element = light();
    if (!element || element.dataset.state === state) return;
    element.dataset.state = state;
    element.querySelector("span").textContent = text;
    element.title = text;
  };

  const tell = (topic, facts = {}) => {
    if (document.hidden && topic !== "tick") return;
    window.htmx.trigger(document.body, `live:${topic}`, facts);
  };

  let socket = null;
  let failures = 0;
  const connect = () => {
    const scheme = window.location.protocol === "https:" ? "wss" : "ws";
    socket = new WebSocket(`${scheme}://${window.location.host}/ws/live/`);
    socket.addEventListener("open", () => {
      if (failures > 0) tell("tick");
      failures = 0;
      show("live", "Live");
    });
    socket.addEventListener("message", (event) => {
      const { topic, ...facts } = JSON.parse(event.data);
      tell(topic, facts);
    });
    socket.addEventListener("close", (event) => {
      failures += 1;
      const since = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
      show(failures < 4 ? "wait" : "down", failures < 4 ? "Reconnecting" : `Stale since ${since}`);
      if (event.code === 4401) return;
      setTimeout(connect, Math.min(30000, 500 * 2 ** failures) * (0.5 + Math.random() / 2));
    });
  };
  if (light()) connect();

  let ticks = 0;
  setInterval(() => {
    ticks += 1;
    const connected = socket?.readyState === WebSocket.OPEN;
    if (!document.hidden && (!connected || ticks % 6 === 0)) tell("tick");
  }, 5000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) tell("tick"); });

  /* A refresh leaves alone what somebody has open or is typing into; a wave opens when its turn comes, and closes after. */
  Object.assign(window.Idiomorph.defaults.callbacks, {
    beforeNodeMorphed: (old, next) => {
      if (old.nodeType !== Node.ELEMENT_NODE) return true;
      if (old.dataset.current !== undefined && old.dataset.current !== next.dataset.current) {
        old.open = next.dataset.current === "true";
      }
      return !old.matches("details.pop[open]");
    },
    beforeAttributeUpdated: (name, element) => !(name === "open" && element.matches("details")),
  });
  document.addEventListener("htmx:afterSettle", showAges);
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.xhr.getResponseHeader("HX-Retarget") !== "#toasts") return;
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  });
})();
