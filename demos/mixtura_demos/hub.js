// Tabs of the hub: arrow keys move between them, a demo's page is loaded when its tab is first opened and stays as it is left.
"use strict";
const tabs = [...document.querySelectorAll("[role=tab]")];
const panels = [...document.querySelectorAll("[role=tabpanel]")];

function open_(slug, focus) {
  const tab = tabs.find((t) => t.dataset.slug === slug) || tabs[0];
  if (!tab) return;
  for (const other of tabs) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
  }
  for (const panel of panels) panel.hidden = panel.id !== tab.getAttribute("aria-controls");
  const frame = document.getElementById(tab.getAttribute("aria-controls")).querySelector("iframe");
  if (frame && !frame.src) load(frame, tab);
  if (focus) tab.focus();
  if (location.hash.slice(1) !== tab.dataset.slug) history.replaceState(null, "", "#" + tab.dataset.slug);
  document.title = tab.textContent + " · Mixtura demos";
}

function load(frame, tab) {
  frame.addEventListener("load", () => {
    frame.previousElementSibling.hidden = true;
    const failed = frame.contentDocument && frame.contentDocument.documentElement.dataset.state === "broken";
    tab.classList.toggle("failed", Boolean(failed));
    tab.title = failed ? "can't be opened" : "";
  });
  frame.src = frame.dataset.src;
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-slug]");
  if (!opener) return;
  event.preventDefault();
  open_(opener.dataset.slug, opener.matches("a"));
});
document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
  const at = tabs.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  open_(tabs[(to + tabs.length) % tabs.length].dataset.slug, true);
});
window.addEventListener("hashchange", () => open_(location.hash.slice(1), false));
open_(location.hash.slice(1), false);
