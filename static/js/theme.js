/* Choose light or dark before the first paint: the stored choice, else the system's. */
(() => {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const stored = window.localStorage.getItem("theme");
    document.documentElement.dataset.bsTheme = stored ?? (system.matches ? "dark" : "light");
    document.dispatchEvent(new CustomEvent("themechange"));
  };
  window.spotoptTheme = {
    toggle() {
      const next = document.documentElement.dataset.bsTheme === "dark" ? "light" : "dark";
      window.localStorage.setItem("theme", next);
      apply();
    },
  };
  system.addEventListener("change", apply);
  apply();
})();
