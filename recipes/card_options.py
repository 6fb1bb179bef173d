"""Options of a recipe that only its model card speaks of: what each means, the same in all tasks."""

from .hub_names import HUB_TASKS


LANGUAGE = {"help": "language code, for the model card"}
DATA_LICENCE = {"help": "licence of the data, for the model card"}
DATA_URL = {"help": "where the data comes from (https://...), for the model card"}
MODEL_LICENCE = {
    "help": 'licence of the weights, as the Hub spells it ("apache-2.0", "cc-by-4.0"), for the model card'
}
HUB_TASK = {"help": f"what the Hub files the model under, for the model card: {', '.join(HUB_TASKS)}"}
INTENDED_USE = {"help": "what the model is for, in a sentence or two, for the model card"}
