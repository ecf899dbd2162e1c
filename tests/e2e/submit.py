"""A job of a night by the job server of RAY_ADDRESS, after one on its store that was cut off."""

import logging
import os
import sys

from ray.job_submission import JobSubmissionClient

from flows.job import metadata_of, run_job
from flows.ray_cluster import Cluster
from rum_core.settings import load
from rum_core.store.layout import Store


def main() -> None:
    """Leave a job of another night on the store at work, then do the job of argv."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    verb, *arguments = sys.argv[1:]
    store = Store.open(load(arguments, prog="submit").store)
    client = JobSubmissionClient(os.environ["RAY_ADDRESS"])
    client.submit_job(entrypoint="sleep 600", metadata=metadata_of(store))
    run_job(verb, arguments, store, Cluster())


if __name__ == "__main__":
    main()
