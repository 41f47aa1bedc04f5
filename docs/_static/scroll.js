// What is wider than the screen scrolls, by the arrow keys too: they need a focus.
const widths = new ResizeObserver((changed) => {
  for (const { target } of changed) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const wide of document.querySelectorAll("article :is(pre, .table-wrapper)"))
  widths.observe(wide);
