// The page works without this file. With it, mails appear as they arrive and open without a reload.
const body = document.body
const list = document.getElementById('list')
const most = 500 // rows, as many as the server keeps

function mark() {
  const open = location.pathname.match(/^\/mail\/(\d+)/)?.[1] ?? document.querySelector('main')?.dataset.id
  for (const row of list.querySelectorAll('.row')) {
    if (row.id === 'mail-' + open) row.setAttribute('aria-current', 'true')
    else row.removeAttribute('aria-current')
  }
}

async function open(url) {
  const answer = await fetch(url)
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
  const main = page.querySelector('main')
  if (!main) return location.assign(url) // an error page
  document.querySelector('main').replaceWith(main)
  document.title = page.title
  body.dataset.view = page.body.dataset.view
  mark()
}

document.addEventListener('click', event => {
  const link = event.target.closest('a[data-open]')
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
  event.preventDefault()
  history.pushState(null, '', link.href)
  open(link.href)
})

addEventListener('popstate', () => open(location.href))

// j and k walk down and up the list, as in other mail readers.
addEventListener('keydown', event => {
  if (event.metaKey || event.ctrlKey || event.altKey || !['j', 'k'].includes(event.key)) return
  const now = list.querySelector('.row[aria-current]')
  const next = event.key === 'j' ? now?.nextElementSibling : now?.previousElementSibling
  next?.click()
  next?.scrollIntoView({ block: 'nearest' })
})

const events = new EventSource(`/events?run=${body.dataset.run}&after=${body.dataset.after}`)
events.onopen = () => { body.dataset.live = 'yes' }
events.onerror = () => { body.dataset.live = 'no' }
events.addEventListener('restarted', () => location.assign('/'))
events.addEventListener('figures', event => { document.getElementById('figures').innerHTML = event.data })
events.addEventListener('mail', event => {
  const holder = document.createElement('template')
  holder.innerHTML = event.data
  const row = holder.content.firstElementChild
  const before = document.getElementById(row.id)
  list.querySelector('.empty')?.remove()
  if (before) {
    row.className = before.className // it goes on arriving
    before.replaceWith(row)
  } else {
    row.classList.add('new')
    list.prepend(row)
  }
  while (list.childElementCount > most) list.lastElementChild.remove()
  mark()
})

mark()
