"use strict";
(function () {
  const ROW = 24;

  function filter(input) {
    const scope = document.getElementById(input.dataset.filter);
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    let total = 0;
    // The plot repeats the worst rows of the table: count those of the table only.
    for (const item of scope.querySelectorAll("[data-search]")) {
      const text = item.dataset.search.toLowerCase();
      const matches = words.every((word) => text.includes(word));
      item.classList.toggle("gone", !matches);
      if (!(item instanceof SVGElement)) {
        total += 1;
        shown += matches ? 1 : 0;
      }
    }
    for (const plot of scope.querySelectorAll("svg.bars")) stack(plot);
    if (words.length) {
      for (const details of scope.querySelectorAll("details")) details.open = true;
    }
    const count = input.parentElement.querySelector(".count");
    count.textContent = words.length ? shown + " of " + total : "";
  }

  function stack(plot) {
    const bars = plot.querySelectorAll("g[data-search]:not(.gone)");
    bars.forEach((bar, index) => bar.setAttribute("transform", "translate(0," + index * ROW + ")"));
    plot.setAttribute("height", String(bars.length * ROW));
  }

  function valueOf(row, column) {
    const cell = row.cells[column];
    const value = cell.dataset.value;
    if (value === undefined) return cell.textContent;
    if (value === "inf") return Infinity;
    return value === "-inf" ? -Infinity : Number(value);
  }

  function compare(one, other) {
    if (typeof one === "string") return one.localeCompare(other, undefined, { numeric: true });
    return one < other ? -1 : one > other ? 1 : 0;
  }

  function sort(table, header) {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    for (const one of header.parentElement.cells) one.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [valueOf(row, header.cellIndex), row]);
    rows.sort((one, other) => compare(one[0], other[0]) * (ascending ? 1 : -1));
    body.append(...rows.map((pair) => pair[1]));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      if (header.classList.contains("unsorted")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, header));
      header.append(button);
    }
  }

  // A link can carry what to look for: #search=conv; and, for tests and scripts, #sort=column.
  const hash = new URLSearchParams(location.hash.slice(1));
  for (const input of document.querySelectorAll("input[data-filter]")) {
    input.parentElement.hidden = false;
    input.addEventListener("input", () => filter(input));
    input.value = hash.get("search") || "";
    if (input.value) filter(input);
  }
  if (hash.has("sort")) {
    for (const button of document.querySelectorAll("table.sortable thead button")) {
      if (button.textContent === hash.get("sort")) button.click();
    }
  }
})();
