// The plan: skips on or off, as YAML.

const isOn = new Map(data.skips.map((skip) => [skip.key, true]));
const boxesOfSkips = new Map([...document.querySelectorAll("input[data-skip]")].map((box) => [box.dataset.skip, box]));

function turn(skip, on) {
  isOn.set(skip.key, on);
  shapes.get(skip.key).classList.toggle("off", !on);
  boxesOfSkips.get(skip.key).checked = on;
  updatePlan();
}

/** The plan as YAML, with the skips that are on. */
function plan() {
  const chosen = data.skips.filter((skip) => isOn.get(skip.key));
  return data.plan + (chosen.length ? `skips:\n${chosen.map((skip) => skip.yaml).join("")}` : "skips: []\n");
}

function updatePlan() {
  const chosen = data.skips.filter((skip) => isOn.get(skip.key));
  const total = (field) => short(chosen.reduce((all, skip) => all + skip[field], 0));
  document.getElementById("sums").textContent =
    `${chosen.length} of ${count(data.skips.length, "skip")} on: ` +
    `${total("parameters")} parameters, ${total("macs")} MACs.`;
  document.getElementById("yaml").value = plan();
  document.getElementById("copied").textContent = "";
}

/** Copy by the old way where the page may not use the clipboard. */
function copySelected() {
  const area = document.getElementById("yaml");
  area.focus();
  area.select();
  return document.execCommand("copy");
}

async function copyPlan() {
  let isCopied = true;
  try {
    await navigator.clipboard.writeText(plan());
  } catch {
    isCopied = copySelected();
  }
  document.getElementById("copied").textContent = isCopied ? "Copied." : "Selected: copy it with Ctrl+C.";
}

if (data.plan) {
  boxesOfSkips.forEach((box, key) => box.addEventListener("change", () => turn(skips.get(key), box.checked)));
  document.querySelectorAll("[data-all]").forEach((element) => {
    element.addEventListener("click", () => data.skips.forEach((skip) => turn(skip, element.dataset.all === "on")));
  });
  document.querySelectorAll("[data-tap]").forEach((element) => {
    element.addEventListener("click", () => {
      chooseBlock(blockOf.get(element.dataset.tap));
      stage.scrollIntoView({ block: "nearest" });
    });
  });
  document.getElementById("copy").addEventListener("click", copyPlan);
  updatePlan();
}
