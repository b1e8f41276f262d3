"use strict";
// The page can be read without this script: it sorts tables, switches the theme and shows one choice at a time.

function sortBy(table, column, button) {
  const head = button.closest("th");
  const descending = head.ariaSort === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.ariaSort = descending ? "descending" : "ascending";
  const sign = descending ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row) => {
    const cell = row.cells[column];
    const number = "value" in cell.dataset ? Number(cell.dataset.value) : NaN;
    return { row, number, text: head.classList.contains("number") ? "" : cell.textContent };
  });
  rows.sort((a, b) => {
    if (Number.isNaN(a.number) !== Number.isNaN(b.number)) return Number.isNaN(a.number) ? 1 : -1; // empty cells last
    if (!Number.isNaN(a.number) && a.number !== b.number) return sign * (a.number < b.number ? -1 : 1);
    return sign * a.text.localeCompare(b.text, "en", { numeric: true });
  });
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, column, button));
    head.append(button);
  });
}

for (const group of document.querySelectorAll(".choices")) {
  const choices = [...group.children];
  if (choices.length < 2) continue;
  const label = document.createElement("label");
  const select = document.createElement("select");
  label.append(`${group.dataset.label} `, select);
  for (const choice of choices) select.append(new Option(choice.dataset.choice));
  const show = () => choices.forEach((choice, i) => (choice.hidden = i !== select.selectedIndex));
  select.addEventListener("change", show);
  group.prepend(label);
  group.classList.add("chosen");
  show();
}

for (const figure of document.querySelectorAll("figure:has(.legend)")) {
  for (const entry of figure.querySelectorAll(".legend [data-series]")) {
    const mark = (on) => {
      for (const series of figure.querySelectorAll("svg [data-series]")) {
        series.classList.toggle("dim", on && series.dataset.series !== entry.dataset.series);
      }
    };
    entry.addEventListener("pointerenter", () => mark(true));
    entry.addEventListener("pointerleave", () => mark(false));
  }
}

{
  const root = document.documentElement;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "theme";
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => (button.textContent = isDark() ? "Light" : "Dark");
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
  document.querySelector("header").prepend(button);
}
