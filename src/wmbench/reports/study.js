for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.querySelectorAll("th")], body = table.tBodies[0];
  heads.forEach((head, k) => head.firstChild.onclick = () => {
    const sign = head.ariaSort === "descending" ? 1 : -1;
    heads.forEach(other => other.ariaSort = "none");
    head.ariaSort = sign > 0 ? "ascending" : "descending";
    const key = row => row.cells[k].dataset.sort, number = text => text === "" ? -Infinity : Number(text);
    const numeric = [...body.rows].every(row => !isNaN(Number(key(row))));
    const order = (a, b) => numeric ? number(key(a)) - number(key(b)) : key(a).localeCompare(key(b));
    body.append(...[...body.rows].sort((a, b) => sign * order(a, b)));
  });
}
const show = () => { const row = document.getElementById(location.hash.slice(1)), box = row && row.closest("details");
  if (box && !box.open) { box.open = true; row.scrollIntoView(); } };
addEventListener("hashchange", show); show();
