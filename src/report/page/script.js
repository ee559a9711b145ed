"use strict";
(() => {
  const rows = Array.from(document.querySelectorAll("tbody tr"));
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const field = document.getElementById("search");
  const count = document.getElementById("shown");
  const buttons = Array.from(document.querySelectorAll("ul.legend button"));
  let state = "";
  const show = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter((word) => word !== "");
    let shown = 0;
    rows.forEach((row, at) => {
      const fits = (state === "" || row.dataset.state === state) && words.every((word) => texts[at].includes(word));
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    count.textContent = `${shown} of ${rows.length} shown`;
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      state = state === button.value ? "" : button.value;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other.value === state));
      show();
    });
  }
  field.addEventListener("input", show);
  document.querySelector(".search").hidden = false;
  show();
})();
