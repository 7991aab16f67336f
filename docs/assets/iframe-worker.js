/*
 * A stand-in for Worker where a page was opened from a folder: browsers start no worker from a file: address. The script
 * runs in a hidden frame of the same page in place of a thread, and talks as a worker would. Search needs no more.
 */
"use strict";

if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inside = this.frame.contentWindow;
      // What the script sends is heard by this worker's listeners.
      inside.postMessage = (data) => this.tell(this, data, this.onmessage);
      // Scripts are loaded in order; what was asked meanwhile waits for them.
      inside.importScripts = (...addresses) =>
        addresses.reduce((before, one) => before.then(() => this.load(one, address)), Promise.resolve());
      this.load(address, document.baseURI).then(() => {
        this.ready = true;
        this.waiting.splice(0).forEach((data) => this.postMessage(data));
      });
    }

    load(address, from) {
      return new Promise((resolve, reject) => {
        const script = this.frame.contentDocument.createElement("script");
        script.src = new URL(address, new URL(from, document.baseURI));
        script.onload = resolve;
        script.onerror = reject;
        this.frame.contentDocument.body.appendChild(script);
      });
    }

    tell(target, data, handler) {
      const event = new MessageEvent("message", { data });
      if (handler) handler.call(target, event);
      target.dispatchEvent(event);
    }

    postMessage(data) {
      if (!this.ready) {
        this.waiting.push(data);
        return;
      }
      const inside = this.frame.contentWindow;
      this.tell(inside, data, inside.onmessage);
    }

    terminate() {
      this.frame.remove();
    }
  };
}
