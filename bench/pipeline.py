"""One process of a pipeline of three: clean, features, train. bench/group_types.go starts it.

    pipeline.py STAGE HOW IN OUT

IN and OUT are paths, or for HOW=SOCKET of a daemon the id of an object and nothing. It prints
a line of JSON: the seconds spent in reading from and writing to other stages, the id of what
was written, and from train numbers to compare with those of other ways.
"""

import json
import sys
from time import perf_counter as clock

import numpy as np
import pandas as pd


class Store:
    """A data frame in the daemon of a socket, through the published client."""

    def __init__(self, socket):
        import vineyard

        self.vineyard, self.socket, self.client = vineyard, socket, None

    def connect(self):
        if self.client is None:
            self.client = self.vineyard.connect(self.socket)
        return self.client

    def read(self, place):
        return self.connect().get(self.vineyard.ObjectID(place))

    def write(self, frame, place):
        return repr(self.connect().put(frame)).strip('"')


class Files:
    def __init__(self, how):
        self.how = how
        if how == "parquet":
            import pyarrow.parquet

            self.library = pyarrow.parquet  # loaded here, not while it is timed

    def read(self, place):
        if self.how == "csv":
            columns = pd.read_csv(place, nrows=0).columns
            return pd.read_csv(place, parse_dates=["day"] if "day" in columns else None)
        return pd.read_pickle(place) if self.how == "pickle" else pd.read_parquet(place)

    def write(self, frame, place):
        if self.how == "csv":
            frame.to_csv(place, index=False)
        elif self.how == "pickle":
            frame.to_pickle(place)
        else:
            frame.to_parquet(place)
        return place


def clean(raw):
    whole = raw.dropna()
    good = whole[whole.quantity > 0]
    return good.astype({"quantity": "int64"}).reset_index(drop=True)


def features(frame):
    regions = pd.get_dummies(frame.region, prefix="region", drop_first=True, dtype="float64")
    made = frame.drop(columns=["order", "region", "day"]).assign(
        total=frame.price * frame.quantity,
        log_price=np.log1p(frame.price),
        weekday=frame.day.dt.dayofweek.astype("int64"),
        month=frame.day.dt.month.astype("int64"),
        x01=frame.x0 * frame.x1,
        x23=frame.x2 * frame.x3,
    )
    return pd.concat([made, regions], axis=1)


def train(frame):
    x, y = frame.drop(columns="target").to_numpy("float64"), frame.target.to_numpy()
    try:
        from sklearn.linear_model import LinearRegression

        model = LinearRegression().fit(x, y)
        score, weights = model.score(x, y), model.coef_
    except ImportError:  # the row's name says so
        x = np.column_stack([x, np.ones(len(x))])
        weights = np.linalg.lstsq(x, y, rcond=None)[0]
        score = 1 - ((y - x @ weights) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        weights = weights[:-1]
    return [len(frame), float(score), float(np.abs(weights).sum())]


def main():
    stage, how, source, target = sys.argv[1:]
    store = Files(how) if how in ("csv", "parquet", "pickle") else Store(how)
    sharing, answer = 0.0, {}
    if stage == "clean":
        frame = clean(pd.read_csv(source, na_values=["n/a"], parse_dates=["day"]))
    else:
        start = clock()
        frame = store.read(source)
        sharing += clock() - start
        if stage == "train":
            answer["check"] = train(frame)
        else:
            frame = features(frame)
    if stage != "train":
        start = clock()
        answer["place"] = store.write(frame, target)
        sharing += clock() - start
    answer["sharing"] = sharing
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
