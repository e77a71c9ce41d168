// Tells the kernel which point of a chart in the same panel was clicked. JupyterLab draws figures
// itself, and plotly speaks of clicks through the element that it has drawn into.

function render({ model, el }) {
  const heard = (event) => {
    const id = event.points?.[0]?.id;
    if (id) model.send({ kind: "choose", id: String(id) });
  };
  const listen = (panel) => {
    for (const plot of panel.querySelectorAll(".js-plotly-plot")) {
      // Drawn anew, plotly may have forgotten its listeners, or not.
      plot.removeListener?.("plotly_click", heard);
      plot.on?.("plotly_click", heard);
    }
  };
  const observer = new MutationObserver(() => listen(el.closest(".workbench-panel")));
  let frame = requestAnimationFrame(function look() {
    const panel = el.closest(".workbench-panel");
    if (!panel) {
      frame = requestAnimationFrame(look);
      return;
    }
    observer.observe(panel, { childList: true, subtree: true });
    listen(panel);
  });
  return () => {
    cancelAnimationFrame(frame);
    observer.disconnect();
  };
}

export default { render };
