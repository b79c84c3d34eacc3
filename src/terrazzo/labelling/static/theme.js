// Before the first paint: the colours that were chosen here, if any; else the system's. Not a module, so that nothing flashes.
(() => {
  try {
    const theme = JSON.parse(localStorage.getItem("terrazzo.theme"));
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  } catch {
    // as the system has it
  }
})();
