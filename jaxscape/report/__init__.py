"""From an explanation to words, numbers, figures and a page."""

from jaxscape.report.figures import draw_features as draw_features
from jaxscape.report.figures import with_effects as with_effects
from jaxscape.report.page import as_text as as_text
from jaxscape.report.page import discard as discard
from jaxscape.report.page import write as write
from jaxscape.report.sentences import SIGNIFICANT as SIGNIFICANT
from jaxscape.report.sentences import baselines_verdict as baselines_verdict
from jaxscape.report.sentences import conserved_verdict as conserved_verdict
from jaxscape.report.sentences import groups as groups
from jaxscape.report.sentences import names_of_the_sure as names_of_the_sure
from jaxscape.report.sentences import splits_sentence as splits_sentence
from jaxscape.report.sentences import support_sentence as support_sentence
from jaxscape.report.sentences import together_sentence as together_sentence
from jaxscape.report.sentences import verdict as verdict
from jaxscape.report.summary import group_ranks as group_ranks
from jaxscape.report.summary import ranks as ranks
from jaxscape.report.summary import summary as summary
from jaxscape.report.summary import versions as versions
