// Tells the report that shows this page in a frame how high it is: whenever that changes, and when the report asks.
if (parent !== window) {
  const page = document.documentElement;
  const tell = () => parent.postMessage({ height: page.offsetHeight }, "*");
  new ResizeObserver(tell).observe(page);
  addEventListener("message", (event) => event.source === parent && tell());
}
