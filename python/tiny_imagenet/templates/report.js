// The filter of the wrong images. Without it all are shown; #class=3&run=0 in the address chooses on load.
(() => {
  const form = document.getElementById("filter");
  const chosen = { class: document.getElementById("filter-class"), run: document.getElementById("filter-run") };
  const count = document.getElementById("filter-count");
  const groups = [...document.querySelectorAll("[data-run]")];

  function show() {
    let shown = 0;
    for (const group of groups) {
      let here = 0;
      for (const tile of group.querySelectorAll("[data-class]")) {
        tile.hidden = chosen.class.value !== "" && tile.dataset.class !== chosen.class.value;
        here += tile.hidden ? 0 : 1;
      }
      group.hidden = (chosen.run.value !== "" && group.dataset.run !== chosen.run.value) ||
        (chosen.class.value !== "" && here === 0);
      shown += group.hidden ? 0 : here;
    }
    count.textContent = shown === 1 ? "1 image" : shown + " images";
  }

  function read() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (!wanted.has("class") && !wanted.has("run")) return;
    for (const [name, select] of Object.entries(chosen)) {
      const value = wanted.get(name) ?? "";
      select.value = [...select.options].some((option) => option.value === value) ? value : "";
    }
    document.getElementById("errors").scrollIntoView();
  }

  function keep() {
    const wanted = new URLSearchParams();
    for (const [name, select] of Object.entries(chosen)) if (select.value !== "") wanted.set(name, select.value);
    history.replaceState(null, "", "#" + (wanted.toString() || "errors"));
    show();
  }

  form.hidden = false;
  form.addEventListener("change", keep);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => { read(); show(); });
  read();
  show();
})();
