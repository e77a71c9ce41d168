// A list of which one line can be chosen. All that it shows is text. Lines keep their elements
// while they are brought up to date, so that the focus stays and a click is not lost.

function line(id, choose) {
  const row = document.createElement("tr");
  row.dataset.id = id;
  // The whole line can be clicked; for the keyboard there is a real button in it.
  row.addEventListener("click", () => choose(id));
  return row;
}

function fill(row, cells, columns) {
  while (row.cells.length < columns.length) {
    const cell = row.insertCell();
    cell.className = columns[row.cells.length - 1][1];
    if (row.cells.length === 1) cell.append(document.createElement("button"));
  }
  cells.forEach((text, number) => {
    const cell = row.cells[number];
    const holder = number === 0 ? cell.firstChild : cell;
    if (holder.textContent !== text) holder.textContent = text;
    // What is too long for its column can be read when it is pointed at.
    if (cell.title !== text) cell.title = text;
  });
  row.cells[0].firstChild.setAttribute("aria-label", cells.join(", "));
}

function walk(event) {
  const steps = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity };
  if (!(event.key in steps) || event.target.tagName !== "BUTTON") return;
  const buttons = [...event.currentTarget.querySelectorAll("tbody button")];
  const place = buttons.indexOf(event.target) + steps[event.key];
  buttons[Math.min(Math.max(place, 0), buttons.length - 1)].focus();
  event.preventDefault();
}

// The kernel works for a panel only while somebody can see it.
function tellWhetherShown(model, el) {
  let inView = false;
  const tell = () => {
    const shown = inView && !document.hidden;
    if (model.get("shown") === shown) return;
    model.set("shown", shown);
    model.save_changes();
  };
  const observer = new IntersectionObserver((entries) => {
    inView = entries.at(-1).isIntersecting;
    tell();
  });
  let frame = requestAnimationFrame(function look() {
    if (el.isConnected) observer.observe(el.closest(".workbench-panel") ?? el);
    else frame = requestAnimationFrame(look);
  });
  document.addEventListener("visibilitychange", tell);
  // Another page on the same kernel was closed or hidden; this one is still there.
  const insist = () => inView && tell();
  model.on("change:shown", insist);
  return () => {
    cancelAnimationFrame(frame);
    observer.disconnect();
    document.removeEventListener("visibilitychange", tell);
    model.off("change:shown", insist);
    inView = false;
    tell();
  };
}

function render({ model, el }) {
  el.classList.add("wb-list");
  const table = document.createElement("table");
  table.setAttribute("aria-label", model.get("label"));
  const head = table.createTHead().insertRow();
  const body = table.createTBody();
  const empty = document.createElement("p");
  el.append(table, empty);
  table.addEventListener("keydown", walk);

  const choose = (id) => {
    mark(id);
    // A message, and no state: that may be held back, and a button pressed next would overtake it.
    model.send({ kind: "choose", id });
  };
  const mark = (selected) => {
    const rows = [...body.rows];
    const reachable = rows.find((row) => row.dataset.id === selected) ?? rows[0];
    for (const row of rows) {
      const chosen = row.dataset.id === selected;
      row.classList.toggle("chosen", chosen);
      const button = row.cells[0].firstChild;
      button.setAttribute("aria-pressed", String(chosen));
      // One stop for the Tab key; arrows go on from there.
      button.tabIndex = row === reachable ? 0 : -1;
    }
  };
  const draw = () => {
    const columns = model.get("columns");
    if (head.cells.length === 0) {
      for (const [name, kind] of columns) {
        const cell = document.createElement("th");
        cell.scope = "col";
        cell.className = kind;
        cell.textContent = name;
        head.append(cell);
      }
    }
    const before = new Map([...body.rows].map((row) => [row.dataset.id, row]));
    const rows = model.get("rows");
    rows.forEach(([id, ...cells], place) => {
      const row = before.get(id) ?? line(id, choose);
      before.delete(id);
      fill(row, cells, columns);
      if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null);
    });
    for (const gone of before.values()) gone.remove();
    table.hidden = rows.length === 0;
    empty.textContent = rows.length === 0 ? model.get("empty") : "";
    showChosen();
  };
  const showChosen = () => mark(model.get("selected"));
  model.on("change:rows change:empty", draw);
  model.on("change:selected", showChosen);
  draw();
  const stop = tellWhetherShown(model, el);
  return () => {
    model.off("change:rows change:empty", draw);
    model.off("change:selected", showChosen);
    stop();
  };
}

export default { render };
