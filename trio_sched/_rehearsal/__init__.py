"""The rehearsal provider: a local, OpenAI-compatible provider that behaves as a script says.

It takes the place of a real endpoint where one wants to see a pipeline at work without a key, a bill or a surprise:
real HTTP, a real client library, and latencies, limits, refusals and failures that strike when the script says so.

    full, low = Phase(max_in_flight=24), Phase(name="low", after_accepted=500, max_in_flight=8)
    async with open_rehearsal({"a": RehearsalScript(phases=(full, low))}) as server:
        client = AsyncOpenAI(base_url=server.base_url("a"), api_key="rehearsal", max_retries=0)

`rehearsal_process` takes the same and serves it from a process of its own.

Who does what: `script` is values; `provider` decides and counts; `serde` is scripts and counts as JSON; `answers` and
`wire` say what goes over the wire; `app` and `server` serve it; `process` serves it from a child process and
reaches it there.
"""
