"""The clients of the race: `python -m benchmarks.race.clients.NAME BASE_URL CAP ROWS` prints one line of JSON.

Each drives one library as its documentation says, told the cap as the number of calls it may have at once. For each row
it asks "row N", and then asks again quoting the answer. What is left of a row whose call failed for good is lost.
"""
