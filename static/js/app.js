/* Small behaviour, as Alpine components; every page works without it. */
document.addEventListener("alpine:init", () => {
  const { Alpine } = window;

  Alpine.data("theme", () => ({
    toggle() { window.spotoptTheme.toggle(); },
  }));

  Alpine.data("copyBox", () => ({
    label: "Copy",
    async copy() {
      await navigator.clipboard.writeText(this.$refs.text.textContent.trim());
      this.label = "Copied";
      setTimeout(() => { this.label = "Copy"; }, 2000);
    },
  }));

  Alpine.data("palette", () => ({
    options() { return [...this.$root.querySelectorAll("a")]; },
    open() {
      if (this.$root.open) return;
      this.$root.showModal();
      const input = this.$root.querySelector("input");
      input.select();
      window.htmx.trigger(input, "search");
    },
    shortcut(event) {
      if (event.key.toLowerCase() !== "k" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.open();
    },
    backdrop(event) { if (event.target === this.$root) this.$root.close(); },
    move(step) {
      const options = this.options();
      if (!options.length) return;
      const at = options.findIndex((option) => option.getAttribute("aria-selected") === "true");
      const next = options[(at + step + options.length) % options.length];
      for (const option of options) option.setAttribute("aria-selected", String(option === next));
      next.scrollIntoView({ block: "nearest" });
    },
    down(event) { event.preventDefault(); this.move(1); },
    up(event) { event.preventDefault(); this.move(-1); },
    go(event) {
      event.preventDefault();
      const options = this.options();
      (options.find((option) => option.getAttribute("aria-selected") === "true") ?? options[0])?.click();
    },
  }));

  Alpine.data("paletteButton", () => ({
    open() { this.$dispatch("palette-open"); },
  }));

  Alpine.data("chartCard", () => ({
    asTable: false,
    showChart() { this.asTable = false; },
    showTable() { this.asTable = true; },
    get chartPressed() { return String(!this.asTable); },
    get tablePressed() { return String(this.asTable); },
  }));

  Alpine.data("autoSubmit", () => ({
    send() { this.$root.requestSubmit(); },
  }));
});

/* Disclosure menus close on Escape and on a click elsewhere; a toast goes when dismissed. */
const closeOthers = (keep) => {
  for (const open of document.querySelectorAll("details.pop[open]")) {
    if (!open.contains(keep)) open.open = false;
  }
};
document.addEventListener("click", (event) => {
  closeOthers(event.target);
  event.target.closest("[data-close]")?.closest("details")?.removeAttribute("open");
  event.target.closest("[data-dismiss]")?.closest(".toast-note")?.remove();
});
/* Good news leaves after a while, unless somebody is at it; a problem stays until it is dismissed. */
setInterval(() => {
  for (const note of document.querySelectorAll(".toast-note:not(.error)")) {
    if (note.matches(":hover, :focus-within")) continue;
    const seconds = Number(note.dataset.seconds ?? 0) + 1;
    if (seconds > 10) note.remove();
    else note.dataset.seconds = String(seconds);
  }
}, 1000);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = document.querySelector("details.pop[open]");
  if (!open) return;
  open.open = false;
  open.querySelector("summary").focus();
});
