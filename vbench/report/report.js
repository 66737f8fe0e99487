"use strict";
// The page works without this: it sorts tables, opens what is folded when printing, and tells the language.
for (const radio of document.querySelectorAll("input[name=lang]")) {
  radio.addEventListener("change", () => { document.documentElement.lang = radio.value; });
}

const keyOf = (row, column) => {
  const cell = row.cells[column];
  return cell.hasAttribute("data-v") ? cell.getAttribute("data-v") : cell.textContent.trim();
};

const compare = (a, b) => {
  if (a === "" || b === "") return (a === "") - (b === "");  // what is unknown comes last, whichever way
  const x = Number(a), y = Number(b);
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
};

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = table.tHead.rows[0].cells;
  for (let column = 0; column < heads.length; column += 1) {
    const head = heads[column];
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const keyed = Array.from(body.rows, (row) => [keyOf(row, column), row]);
      keyed.sort(([a], [b]) => (a === "" || b === "" ? compare(a, b) : (down ? -1 : 1) * compare(a, b)));
      body.append(...keyed.map(([, row]) => row));
    });
  }
}

let folded = [];
window.addEventListener("beforeprint", () => {
  folded = Array.from(document.querySelectorAll("details:not([open])"));
  for (const each of folded) each.open = true;
});
window.addEventListener("afterprint", () => { for (const each of folded) each.open = false; });
