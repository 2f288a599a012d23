"""The request stage: may this concrete call to this endpoint go out now?"""
