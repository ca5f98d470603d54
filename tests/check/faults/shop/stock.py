"""What is there."""

import requests

BASE = "http://stock.example"


class Shelf:
    def __init__(self, name: str) -> None:
        self.name = name
        self.http = requests.Session()  # expect: library via checkout > Shelf > Shelf.__init__

    def take(self, item: str) -> None:
        self._send("take", item)

    def _send(self, verb: str, item: str) -> None:
        self.http.post(f"{BASE}/{verb}", data=item)  # expect: library via checkout > Shelf.take > Shelf._send
