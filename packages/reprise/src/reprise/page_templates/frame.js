// Tells the report that shows this page in a frame how high it is, now and whenever that changes.
if (parent !== window) {
  const page = document.documentElement;
  new ResizeObserver(() => parent.postMessage({ height: page.offsetHeight }, "*")).observe(page);
}
