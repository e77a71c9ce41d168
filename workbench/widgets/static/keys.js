// Keys pressed in a panel stay in the panel: JupyterLab would take "b" on a checkbox as "insert a
// cell" and "d d" as "delete this cell". Labels get their help texts, which ipywidgets gives to
// few of its controls, and Ctrl+Enter presses the panel's main button.

function whenInPage(el, act) {
  let frame = requestAnimationFrame(function look() {
    const panel = el.closest(".workbench-panel");
    if (panel) act(panel);
    else frame = requestAnimationFrame(look);
  });
  return () => cancelAnimationFrame(frame);
}

function explain(panel, help) {
  for (const label of panel.querySelectorAll(".widget-label, .widget-checkbox label")) {
    const text = help[label.textContent.trim()];
    // A checkbox carries its own name as the title of all its parts.
    if (text) for (const part of [label, ...label.children]) part.title = text;
  }
  for (const untitled of panel.querySelectorAll('[title="null"]')) untitled.removeAttribute("title");
}

const FOLD = ".jupyter-widget-Collapse-header";

// ipywidgets gives the headers of folded parts to the mouse alone.
function makeFoldsButtons(panel) {
  for (const header of panel.querySelectorAll(`${FOLD}:not([tabindex])`)) {
    header.tabIndex = 0;
    header.setAttribute("role", "button");
  }
}

function pressFold(event) {
  if (!event.target.matches(FOLD) || (event.key !== "Enter" && event.key !== " ")) return;
  event.preventDefault();
  event.target.click();
}

function pressMain(event) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey || event.shiftKey)) return;
  if (!event.target.closest("textarea")) return;
  event.preventDefault();
  // The value of a text area reaches the kernel when it loses the focus.
  event.target.blur();
  event.currentTarget.querySelector("button.mod-primary:not([disabled])")?.click();
}

function render({ model, el }) {
  el.style.display = "none";
  return whenInPage(el, (panel) => {
    // On the very element that has the focus: JupyterLab's shortcuts match it before its parents.
    panel.addEventListener("focusin", (event) => {
      event.target.dataset.lmSuppressShortcuts = "true";
    });
    // While the event goes down: text areas of ipywidgets keep it from coming up again.
    panel.addEventListener("keydown", pressMain, true);
    panel.addEventListener("keydown", pressFold);
    makeFoldsButtons(panel);
    // Another backend has other folds.
    const folds = new MutationObserver(() => makeFoldsButtons(panel));
    folds.observe(panel, { childList: true, subtree: true });
    explain(panel, model.get("help"));
    // Labels that came later, in folded groups or for another backend, when they are pointed at.
    panel.addEventListener("mouseover", (event) => {
      if (event.target.closest(".widget-label, .widget-checkbox label")) {
        explain(panel, model.get("help"));
      }
    });
  });
}

export default { render };
