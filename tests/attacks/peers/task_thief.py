"""An account of the machine that takes tasks from Flower's runtime interfaces before their owner.

`CODE` runs as another account (`other_account.as_nobody`)::

    done = as_nobody(CODE, "60", "/public/asking", *places)

Its arguments are a time in seconds, a file that it makes once it has asked everywhere, and places:
``http://host:port``, ``https://host:port`` or the path of a Unix socket. It asks each as fast as it
can; `stealing` does all that beside a block of a test. With a task it does what the task's
process would do: it takes the input, and the message where there is one, answers it with a refusal
in the site's name, and says ``TAKEN place`` and ``ANSWERED``. Otherwise it says what each place's
last answer was. An attack on another route begins with a client like this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from subprocess import CompletedProcess

from tests.attacks.peers.other_account import as_nobody, public_folder
from tests.support.waiting import holds

CODE = r"""
import pathlib, sys, time
import httpx
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, PushTaskOutputRequest
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message

def reach(place, token=""):
    more = [RuntimeTokenHttpInterceptor(token)] if token else []
    version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
    url = "http://localhost" if place.startswith("/") else place
    client = RuntimeHttpClient(url, interceptors=[version, *more], verify=False)
    if place.startswith("/"):
        client._client = httpx.Client(transport=httpx.HTTPTransport(uds=place))
    return client

def answer(client):
    message, context, _, _ = pull_task_input(client)
    forged = RecordDict({"refusal": ConfigRecord({"site": "north", "code": "forged"})})
    push_message(client, Message(forged, reply_to=message), context)
    client.PushTaskOutput(PushTaskOutputRequest(sub_status="completed"))

end, places, said = time.monotonic() + float(sys.argv[1]), sys.argv[3:], {}
clients = {place: reach(place) for place in places}
wanted = AcquireTaskRequest(supported_task_types=["flwr-serverapp", "flwr-clientapp"])
while places and time.monotonic() < end:
    for place in places:
        try:
            got = clients[place].AcquireTask(wanted)
            said[place] = "answered"
        except httpx.HTTPStatusError as error:
            said[place] = str(error.response.status_code)
            continue
        except Exception as error:
            said[place] = f"{type(error).__name__} {error}"
            continue
        if got.token:
            print("TAKEN", place, got.task.type, flush=True)
            owner = reach(place, got.token)
            if got.task.type == "flwr-clientapp":
                answer(owner)
            else:
                owner.PullTaskInput(PullTaskInputRequest())
            print("ANSWERED", flush=True)
            raise SystemExit
    pathlib.Path(sys.argv[2]).touch()
print(said)
"""


@contextmanager
def stealing(*places: str, seconds: float) -> Iterator[Future[CompletedProcess[str]]]:
    """Lets the thief ask while the block runs, from its first line on; yields what it will say."""
    with public_folder() as folder, ThreadPoolExecutor(max_workers=1) as pool:
        folder.chmod(0o777)
        theft = pool.submit(as_nobody, CODE, str(seconds), str(folder / "asking"), *places)
        assert holds(lambda: theft.done() or (folder / "asking").exists())
        yield theft
