"""Everything offline: data sets, features, fitting, tuning, evaluation."""
