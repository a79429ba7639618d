"""Say who the candidates of a policy are: their models, parameters, limits and prices, and what they refuse."""
