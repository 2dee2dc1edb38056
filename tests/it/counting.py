"""The child process of `fake_stdio.py` with two tools more, for tests of who shares it.

`count` says which process it is and how often it was called there. `ask` asks its client's name by a form, and says
after the answer what `count` says.
"""

import os

import fake_stdio

fake_stdio.OWN_TOOLS += ["count", "ask"]
ASKED = "the only question"


class Counting(fake_stdio.Server):
    def __init__(self, options):
        super().__init__(options)
        self.calls = 0
        self.asking = None

    def call(self, message, params, modern):
        if params.get("name") not in ("count", "ask"):
            return super().call(message, params, modern)
        self.calls += 1
        if params["name"] == "ask":
            self.asking = message
            schema = {"type": "object", "properties": {"name": {"type": "string"}}}
            form = {"message": "Who?", "requestedSchema": schema}
            self.send(id=ASKED, method="elicitation/create", params=form)
            raise fake_stdio.Silence
        return self.count()

    def count(self):
        said = {"pid": os.getpid(), "count": self.calls}
        return {"content": [{"type": "text", "text": str(said)}], "structuredContent": said}

    def take(self, message):
        if message.get("id") == ASKED and "method" not in message:
            self.send(id=self.asking["id"], result=self.count())
        else:
            super().take(message)


fake_stdio.Server = Counting
fake_stdio.main()
