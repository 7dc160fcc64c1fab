// The list of problems changed: let the form mark its fields; a click on a problem goes to its field.
watch('value', () => document.dispatchEvent(new Event('mixtura-problems')));
element.addEventListener('click', event => {
  const item = event.target.closest('[data-problem]');
  if (!item) return;
  const field = [...document.querySelectorAll('.form [data-path]')].find(one => one.dataset.path === item.dataset.problem);
  for (let part = field?.closest('details'); part; part = part.parentElement.closest('details')) part.open = true;
  field?.scrollIntoView({block: 'center'});
  field?.focus();
});
