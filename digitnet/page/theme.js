// The switch between light and dark, remembered in this browser.
const dark = () => document.body.classList.contains("dark");
try {
  const kept = localStorage.getItem("digitnet-theme");
  if (kept && !new URLSearchParams(location.search).has("__theme")) document.body.classList.toggle("dark", kept === "dark");
} catch { /* storage may be forbidden */ }
element.querySelector("button").addEventListener("click", () => {
  document.body.classList.toggle("dark");
  try { localStorage.setItem("digitnet-theme", dark() ? "dark" : "light"); } catch { /* as above */ }
});
