// The form's script (gr.HTML's js_on_load): sends what is typed, remembers which sections are open, and marks what is wrong.
// `element`, `props`, `trigger` and `watch` come from gradio. Events: 'edit' {path, value} and 'act' {action, at, name, type, on}.
const PAUSE = 350;
const open = new Map();
const waiting = new Map();

function content(field) {
  if (field.classList.contains('choices')) return [...field.querySelectorAll('input:checked')].map(box => box.value);
  if (field.type === 'checkbox') return field.checked;
  if (field.validity && field.validity.badInput) return 'no number';
  return field.value;
}
function fieldOf(target) { return target.closest('[data-path]'); }
function send(field) {
  const path = field.dataset.path;
  clearTimeout(waiting.get(path));
  waiting.delete(path);
  const value = content(field), text = JSON.stringify(value);
  if (field.dataset.sent === text) return;
  field.dataset.sent = text;
  trigger('edit', {path: JSON.parse(path), value});
}
element.addEventListener('input', event => {
  const field = fieldOf(event.target);
  if (!field) return;
  const path = field.dataset.path;
  clearTimeout(waiting.get(path));
  waiting.set(path, setTimeout(() => send(field), PAUSE));
});
element.addEventListener('change', event => {
  const field = fieldOf(event.target), {dataset} = event.target;
  if (field) send(field);
  else if (dataset.switch) trigger('act', {action: 'switch', at: JSON.parse(dataset.switch), on: event.target.checked});
  else if (dataset.retype) trigger('act', {action: 'retype', at: JSON.parse(dataset.retype), type: event.target.value});
});
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-action]');
  if (!button) return;
  const row = button.parentElement;
  trigger('act', {
    action: button.dataset.action,
    at: JSON.parse(button.dataset.at),
    name: row.querySelector('[data-name]')?.value ?? '',
    type: row.querySelector('[data-type]')?.value ?? '',
  });
});
element.addEventListener('toggle', event => {
  if (event.target.dataset?.key) open.set(event.target.dataset.key, event.target.open);
}, true);

function mark() {
  const wrong = new Map([...document.querySelectorAll('.problems [data-problem]')].map(item => [item.dataset.problem, item]));
  element.querySelectorAll('[data-path]').forEach(field => {
    const problem = wrong.get(field.dataset.path);
    field.setAttribute('aria-invalid', problem ? 'true' : 'false');
  });
  element.querySelectorAll('.wrong[data-for]').forEach(place => {
    place.textContent = wrong.get(place.dataset.for)?.querySelector('span').textContent ?? '';
  });
}
// gradio patches a changed page node by node and leaves typed text standing: a new form replaces the old one whole.
watch('value', () => {
  waiting.forEach(clearTimeout);
  waiting.clear();
  const active = document.activeElement?.dataset?.path ?? document.activeElement?.dataset?.at;
  element.innerHTML = props.value;
  element.querySelectorAll('details[data-key]').forEach(part => {
    if (open.has(part.dataset.key)) part.open = open.get(part.dataset.key);
  });
  if (active) element.querySelector(`[data-path='${CSS.escape(active)}'],[data-at='${CSS.escape(active)}']`)?.focus();
  mark();
});
document.addEventListener('mixtura-problems', mark);
