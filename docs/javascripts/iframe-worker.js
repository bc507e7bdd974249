// Browsers start no worker from a file. Where the site is opened without a server, the search runs in a hidden frame.
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement('iframe')
      this.frame.hidden = true
      this.frame.srcdoc = '<body></body>'
      this.ready = new Promise((resolve) => {
        this.frame.onload = () => {
          const { contentWindow, contentDocument } = this.frame
          contentWindow.postMessage = (data) => this.dispatchEvent(new MessageEvent('message', { data }))
          const script = contentDocument.createElement('script')
          script.src = url
          script.onload = resolve
          contentDocument.body.append(script)
        }
      })
      document.body.append(this.frame)
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent('message', { data })))
    }
  }
}
