// The slider over two pictures: its range moves the line between them.
document.addEventListener("input", (event) => {
  const slider = event.target.closest?.(".slider:has(> .frame)");
  if (slider) slider.style.setProperty("--at", `${event.target.value}%`);
});
